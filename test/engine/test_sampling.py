"""Sampling by a given number, against filters written out by hand."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.no_sync import DEVICE, on_device
from sglang_multiverse.engine import sampling
from sglang_multiverse.engine.guard import GuardMask
from sglang_multiverse.engine.inflight import Replacement
from sglang_multiverse.engine.penalties import count_what_is_seen
from sglang_multiverse.engine.sampling import (
    dress,
    inverse_cdf,
    sample_logprobs_by_stream,
    sample_with_draws,
    undress,
)

ALMOST_ONE = 1 - 2**-53


def draw(weights: list[int], u: float, k: int, p: float, m: float) -> int:
    probs = torch.tensor([weights], dtype=torch.float64)
    return int(
        inverse_cdf(
            probs / probs.sum(),
            torch.tensor([u], dtype=torch.float64),
            torch.tensor([k]),
            torch.tensor([p]),
            torch.tensor([m]),
        )
    )


def kept(weights: list[int], k: int, p: float, m: float) -> list[int]:
    """Likeliest first: top-k, then the shortest run that reaches top-p, then min-p."""
    order = sorted(range(len(weights)), key=lambda i: -weights[i])
    total, before = sum(weights), 0
    tokens = []
    for rank, i in enumerate(order):
        inside = before <= p * total and weights[i] >= weights[order[0]] * m
        if rank < k and inside and weights[i]:
            tokens.append(i)
        before += weights[i]
    return tokens


# Distinct powers of two and dyadic filters: every product and sum is exact.
WEIGHTS = st.permutations([1, 2, 4, 8, 16, 32, 64, 129])


@settings(max_examples=80, deadline=None)
@given(
    WEIGHTS,
    st.integers(0, 999),
    st.integers(1, 9),
    st.sampled_from([0.1, 0.4, 0.7, 0.9, 1.0]),
    st.sampled_from([0.0, 0.1, 0.3, 0.9]),
)
def test_the_draw_falls_where_the_filtered_distribution_says(
    weights: list[int], u: int, k: int, p: float, m: float
) -> None:
    tokens = kept(weights, k, p, m)
    mass = sum(weights[i] for i in tokens)
    u_exact = (u + 0.123) / 1000
    at, expected = 0, tokens[-1]
    for token in tokens:
        at += weights[token]
        if u_exact * mass < at:
            expected = token
            break
    assert draw(weights, u_exact, k, p, m) == expected
    assert draw(weights, 0.0, k, p, m) == tokens[0]
    assert draw(weights, ALMOST_ONE, k, p, m) == tokens[-1]


def test_a_token_of_no_probability_is_never_drawn() -> None:
    for u in (0.0, 0.5, ALMOST_ONE):
        assert draw([0, 1, 0, 0], u, 4, 1.0, 0.0) == 1


def test_rows_are_filtered_by_their_own_parameters() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.2]] * 4)
    chosen = inverse_cdf(
        probs,
        torch.tensor([ALMOST_ONE] * 4, dtype=torch.float64),
        torch.tensor([3, 1, 3, 3]),
        torch.tensor([1.0, 1.0, 0.6, 1.0]),
        torch.tensor([0.0, 0.0, 0.0, 0.9]),
    )
    assert chosen.tolist() == [2, 0, 1, 0]


def test_the_host_never_waits_for_the_mask_or_the_draws() -> None:
    table: Any = SimpleNamespace(
        biases=on_device(4, 2, dtype=torch.float32), columns=on_device(2, dtype=torch.int64)
    )
    mask = GuardMask(table, sampling.to_device([0, 0, 2], DEVICE))
    info: Any = SimpleNamespace(
        multiverse_mask=mask,
        multiverse_draws=[(0, 0.5), (2, 0.25)],
        sampling_seed=None,
        top_ks=on_device(3, dtype=torch.int32),
        top_ps=on_device(3, dtype=torch.float32),
        min_ps=on_device(3, dtype=torch.float32),
    )
    probs = on_device(3, 8, dtype=torch.float32)
    sampling.mask_logits(None, info, probs)

    def original(*_: Any) -> tuple[torch.Tensor, None]:
        return on_device(3, dtype=torch.int32), None

    ids, _ = sampling.sample_with_draws(original, None, probs, info, on_device(3), False)
    assert ids.is_meta and ids.shape == (3,)
    rows = on_device(3, dtype=torch.int64)
    put_in = Replacement(rows, rows, on_device(2, 4, dtype=torch.int64), rows, close=5)
    assert put_in(ids.long()).is_meta


@dataclass
class Info:
    """The part of SGLang's `SamplingBatchInfo` that is touched."""

    sampling_seed: torch.Tensor | None


@pytest.mark.parametrize("hook", [sample_with_draws, sample_logprobs_by_stream])
def test_in_deterministic_mode_each_path_has_its_own_noise(hook: Any) -> None:
    """Siblings at one position and one seed; places are counted in their own tokens."""

    def row(seed: int | None, path: tuple[int, ...], own: int) -> SimpleNamespace:
        params = SimpleNamespace(sampling_seed=seed)
        return SimpleNamespace(sampling_params=params, path=path, output_ids=[0] * own)

    rows = [row(7, (), 3), row(7, (1,), 5), row(7, (2,), 5), row(None, (), 0), row(7, (1,), 6)]
    given = torch.tensor([7, 7, 7, 42, 7])
    batch = SimpleNamespace(reqs=rows, device="cpu", sampling_info=Info(given))
    extra = (False,) if hook is sample_with_draws else ()

    def original(sampler: Any, values: Any, info: Any, positions: torch.Tensor, *_: Any) -> Any:
        return info.sampling_seed.tolist(), positions.tolist()

    def ask() -> Any:
        return hook(original, None, None, batch.sampling_info, torch.full((5,), 99), *extra)

    dress(batch.sampling_info, batch)  # type: ignore[arg-type]
    seeds, places = ask()
    assert places == [3, 5, 5, 0, 6]
    assert (seeds[0], seeds[3]) == (7, 42)  # who does not fork is seeded as SGLang would
    assert seeds[1] == seeds[4]
    assert len(set(seeds)) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)
    undress(batch.sampling_info)
    assert ask() == (given.tolist(), [99] * 5)


def test_what_scales_logits_comes_last_in_every_batch() -> None:
    """Also in one whose rows ask for no penalty: rows that do may be merged into it."""
    scales, adds = SimpleNamespace(is_multiplicative=True), SimpleNamespace(is_multiplicative=False)
    orchestrator = SimpleNamespace(is_required=False, penalizers={"scales": scales, "adds": adds})
    count_what_is_seen(SimpleNamespace(penalizer_orchestrator=orchestrator))
    assert list(orchestrator.penalizers) == ["adds", "scales"]
