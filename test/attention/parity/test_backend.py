"""Forked text, prefilled with intervals and decoded over shared prefixes, against a dense mask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest
import torch
from lone import LoneRunner, Row
from trees import Text, decode

from sglang_multiverse.attention import prefixes, registry
from sglang_multiverse.attention.backend import PLAIN, SHARED, HiddenError
from sglang_multiverse.kernels.grouping import Link
from sglang_multiverse.kernels.prefix_tables import PrefixTables
from sglang_multiverse.kernels.visible import Visible

TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def share_all() -> Iterator[None]:
    """Inner groups of a few tokens, too."""
    with patch.object(prefixes, "MIN_SAVED", 1):
        yield


def ends(text: Text) -> list[int]:
    """Where prompts are cut: in every branch and conclusion, and behind all."""
    cuts = []
    todo = list(text.blocks)
    while todo:
        block = todo.pop()
        for branch in block.branches:
            todo += branch.blocks
            cuts.append(branch.span.hi - 1)
        assert block.conclusion is not None
        cuts.append(block.conclusion.lo)
    return [*cuts, len(text.ids)]


@pytest.mark.parametrize("name", ["flat", "nested"])
@pytest.mark.parametrize("cached", ["nothing", "a part"])
def test_a_prompt_with_blocks_is_one_extend(
    runner: LoneRunner, texts: dict[str, Text], name: str, cached: str
) -> None:
    text = texts[name]
    cuts = ends(text)
    # The second half of a block is computed over the cached first half.
    start = text.blocks[0].branches[0].span.hi - 2 if cached == "a part" else 0
    rows = [runner.row() for _ in cuts]
    if start:
        for row in rows:
            runner.extend([row], [text.ids[:start]], text.positions[:start], text.hidden[:start])
    rows, cuts = zip(*((r, c) for r, c in zip(rows, cuts, strict=True) if c > start), strict=True)
    got = runner.extend(
        rows,
        [text.ids[start:cut] for cut in cuts],
        [p for cut in cuts for p in text.positions[start:cut]],
        torch.cat([text.hidden[start:cut] for cut in cuts]),
    )
    want = torch.stack([text.logits[cut - 1] for cut in cuts])
    assert (got - want).abs().max() < TOLERANCE


def test_what_is_hidden_matters(runner: LoneRunner, texts: dict[str, Text]) -> None:
    """The same without intervals is another text: the test above could fail."""
    text = texts["flat"]
    cut = text.blocks[0].branches[-1].span.hi - 1
    got = runner.extend([runner.row()], [text.ids[:cut]], text.positions[:cut], None)
    assert (got[0] - text.logits[cut - 1]).abs().max() > 100 * TOLERANCE


def test_decode_shares_prefixes_eagerly(eager: LoneRunner, texts: dict[str, Text]) -> None:
    done = decode(eager, [texts["flat"]], texts["flat"].blocks[0].goal_end - 1, most=12)
    assert done.error < TOLERANCE
    assert done.in_graph == 0 and 5 < done.shared < done.steps


def test_decode_shares_prefixes_in_graphs(
    graphs: Any, runner: LoneRunner, texts: dict[str, Text]
) -> None:
    """Two families side by side: rows come and go, and the graphs are padded."""
    prompt = min(text.blocks[0].goal_end for text in texts.values()) - 1
    fills = []
    fill = PrefixTables.fill

    def counted(tables: PrefixTables, plan: Any) -> None:
        fills.append(plan)
        fill(tables, plan)

    with patch.object(PrefixTables, "fill", counted):
        done = decode(runner, list(texts.values()), prompt)
    assert done.error < TOLERANCE
    assert done.in_graph == done.steps
    assert 10 < done.shared < done.steps
    # Not in every step: when rows came or went.
    assert 0 < len(fills) < done.shared / 2
    replayed = getattr(graphs, "replayed", None)
    if replayed is not None:
        assert {key.attention_variant for key in replayed} == {PLAIN, SHARED}
        assert sum(key.attention_variant == SHARED for key in replayed) == done.shared
        for key, (_, state) in graphs.captured.items():  # whose kernels are in which
            assert (state["_step"] is not None) == (key.attention_variant == SHARED)


def rows_of_a_prompt(runner: LoneRunner, text: Text, count: int) -> tuple[list[Row], int]:
    """`count` rows behind one prompt, as for `n > 1`, and how long it is."""
    trunk = runner.row()
    runner.extend([trunk], [text.ids[:100]], text.positions[:100], None)
    return [runner.row(trunk) for _ in range(count)], 100


def test_a_large_batch_decodes_without_a_graph(
    graphs: Any, runner: LoneRunner, texts: dict[str, Text]
) -> None:
    text = texts["flat"]
    rows, at = rows_of_a_prompt(runner, text, 9)
    chains = [(Link("prompt", at),)] * 9
    logits = runner.decode(rows, [text.ids[at]] * 9, [at] * 9, chains)
    assert not runner.in_graph and runner.shares
    assert (logits - text.logits[at]).abs().max() < TOLERANCE


def test_chains_of_another_batch_are_refused(
    graphs: Any, runner: LoneRunner, texts: dict[str, Text]
) -> None:
    text = texts["flat"]
    rows, at = rows_of_a_prompt(runner, text, 3)
    with pytest.raises(prefixes.ChainsError, match="4 rows; the step has 3"):
        runner.decode(rows, [text.ids[at]] * 3, [at] * 3, [(Link("prompt", at),)] * 4)


def test_a_layer_that_cannot_hide_is_refused(runner: LoneRunner, texts: dict[str, Text]) -> None:
    """It decodes by SGLang's kernels all the same."""
    text = texts["flat"]
    rows, at = rows_of_a_prompt(runner, text, 2)
    layer = runner.runner.model.model.layers[0].self_attn.attn
    with patch.object(layer, "xai_temperature_len", 10_000):
        with pytest.raises(HiddenError, match="layer 0: a temperature by length"):
            runner.extend([runner.row()], [text.ids], text.positions, text.hidden)
        with patch.object(runner.runner, "decode_cuda_graph_runner", None):
            chains = [(Link("prompt", at),)] * 2
            logits = runner.decode(rows, [text.ids[at]] * 2, [at] * 2, chains)
    assert (logits - text.logits[at]).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"use_mla_backend": True}, "MLA"),
        ({"sliding_window_size": 128}, "a sliding window"),
        ({"kv_cache_dtype": torch.float8_e4m3fn}, "KV of torch.float8_e4m3fn beside torch.float32"),
        ({"is_draft_worker": True}, "a draft model"),
    ],
)
def test_sglangs_backend_takes_what_ours_cannot(
    runner: LoneRunner, changes: dict[str, Any], why: str
) -> None:
    with ExitStack() as stack:
        for name, value in changes.items():
            stack.enter_context(patch.object(runner.runner, name, value))
        assert registry.unfit(runner.runner) == why


def test_what_is_not_said_again_no_longer_holds(runner: LoneRunner, texts: dict[str, Text]) -> None:
    backend = runner.backend
    backend.expect(Visible(texts["flat"].hidden, [(Link("a", 900),)] * 2))
    assert backend.prefixes.shared
    backend.expect(Visible())
    assert not backend.prefixes.shared and backend._hidden is None
