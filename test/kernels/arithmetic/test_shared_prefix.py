"""The decode kernels against their reference."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import DEVICE, Batch, Heads, check, exact, forest, roomy

from sglang_multiverse.kernels.grouping import Capacity, Link, plan_pieces
from sglang_multiverse.kernels.prefix_tables import PrefixTables
from sglang_multiverse.kernels.reference import shared_prefix_decode_reference
from sglang_multiverse.kernels.shared_prefix import Workspace, shared_prefix_decode
from sglang_multiverse.kernels.tiles import Tile, rows_per_piece

SMALL = Tile(16, 16, 4, 1)
# Two families of branches, one with two of its own, and two rows alone.
FAMILIES = Batch(
    [
        [Link("a", 100), Link("a.1", 150)],
        [Link("b", 30)],
        [Link("a", 100)],
        [],
        [Link("a", 100), Link("a.1", 150), Link("a.1.2", 160)],
        [Link("b", 30)],
        [Link("a", 100), Link("a.1", 150), Link("a.1.2", 160)],
        [Link("c", 20)],
    ],
    [5, 0, 40, 33, 1, 7, 0, 9],
)
# A shared part in three pieces, a suffix of two splits, one of none; one row alone.
PAIR = Batch([[Link("a", 40)], [Link("a", 40)], []], [21, 0, 9])


def tables(batch: Batch, capacity: Capacity, **kwargs: Any) -> PrefixTables:
    found = PrefixTables.allocate(capacity, DEVICE)
    found.fill(plan_pieces(batch.chains, capacity, **kwargs))
    return found


def agrees(
    case: tuple[Any, ...], prefixes: PrefixTables | None, splits: int = 2, **kwargs: Any
) -> None:
    workspace = Workspace.allocate(*case[:3], prefixes, splits=splits)
    # What is not written must not be read.
    workspace.out.fill_(float("nan"))
    workspace.lse.fill_(float("nan"))
    got = shared_prefix_decode(*case, prefixes, workspace, tile=SMALL, **kwargs)
    check(got, exact(shared_prefix_decode_reference, case, **kwargs))


@given(
    rows=st.integers(1, 9),
    depth=st.integers(0, 3),
    group=st.integers(1, 4),
    kv=st.integers(1, 2),
    rows_per_piece=st.integers(1, 4),
    pieces=st.integers(0, 12),
    states=st.integers(0, 6),
    wanted=st.integers(1, 8),
    splits=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None, database=None, derandomize=True)
def test_shapes(
    rows: int,
    depth: int,
    group: int,
    kv: int,
    rows_per_piece: int,
    pieces: int,
    states: int,
    wanted: int,
    splits: int,
    seed: int,
) -> None:
    batch = forest(random.Random(seed), rows, depth, prefix=50, own=50)
    case = batch.arguments(Heads(kv, group, 16, 16), seed=seed)
    capacity = Capacity(rows + seed % 3, pieces, 12, states, rows_per_piece)
    agrees(case, tables(batch, capacity, wanted_pieces=wanted, least=16, min_saved=1), splits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("d", "dv"), [(64, 64), (80, 80), (96, 96), (128, 128), (192, 128), (256, 256)]
)
def test_head_dims_and_dtypes(d: int, dv: int, dtype: torch.dtype) -> None:
    batch = Batch([[Link("a", 70)]] * 3, [3, 0, 70])
    case = batch.arguments(Heads(1, 3, d, dv), dtype)
    prefixes = tables(batch, roomy(3, rows_per_piece=rows_per_piece(dtype, d, 3, 1)))
    assert prefixes.suffix_start.tolist() == [70, 70, 70]
    got = shared_prefix_decode(*case, prefixes)
    check(got, exact(shared_prefix_decode_reference, case))


@pytest.mark.parametrize("logit_cap", [0.0, 1.5, 30.0])
@pytest.mark.parametrize("sm_scale", [None, 0.3])
def test_scale_and_soft_cap(sm_scale: float | None, logit_cap: float) -> None:
    prefixes = tables(PAIR, roomy(3), least=16, min_saved=1)
    agrees(PAIR.arguments(), prefixes, sm_scale=sm_scale, logit_cap=logit_cap)


def test_without_tables_it_is_plain_decode() -> None:
    agrees(FAMILIES.arguments(), None)
    agrees(FAMILIES.arguments(), PrefixTables.allocate(roomy(8), DEVICE))


def test_only_the_first_row_of_a_group_says_where_its_prefix_is() -> None:
    """So the prefix is read once: the slots that the other rows name for it are not looked at."""
    case = [*FAMILIES.arguments()]
    prefixes = tables(FAMILIES, roomy(8), least=32, min_saved=1)
    want = exact(shared_prefix_decode_reference, case)
    begins, nowhere = case[3].tolist(), case[1].shape[0] - 1
    assert nowhere not in case[4]
    case[1], case[4] = case[1].clone(), case[4].clone()
    case[1][nowhere] = float("nan")
    # Row 4 is the first of those that share [150, 160).
    for row, start, stop in ((2, 0, 100), (4, 0, 150), (5, 0, 30), (6, 0, 160)):
        case[4][begins[row] + start : begins[row] + stop] = nowhere
    got = shared_prefix_decode(*case, prefixes, tile=SMALL)
    check(got, want)


def test_tables_are_filled_again_where_they_are() -> None:
    capacity = roomy(8)
    prefixes = tables(FAMILIES, capacity, least=16, min_saved=1)
    addresses = [table.data_ptr() for table in (prefixes.pieces, prefixes.members)]
    agrees(FAMILIES.arguments(), prefixes)
    other = Batch([[Link("z", 64)]] * 4, [1, 2, 3, 0])
    prefixes.fill(plan_pieces(other.chains, capacity, least=16, min_saved=1))
    agrees(other.arguments(), prefixes)
    prefixes.fill(plan_pieces([[]] * 8, capacity))
    agrees(FAMILIES.arguments(), prefixes)
    assert addresses == [table.data_ptr() for table in (prefixes.pieces, prefixes.members)]


def test_many_states() -> None:
    """More than a merge takes at a time."""
    batch = Batch([[Link("a", 180)]] * 2, [150, 40])
    prefixes = tables(batch, roomy(2), least=16, min_saved=1)
    assert prefixes.states.tolist() == [12, 12]
    case = batch.arguments(Heads(1, 2, 16, 16))
    for key in (-1, 10, 185):  # the state that outweighs all others comes last, or among the first
        case[0][:] = 2 * case[1][case[4][key]]
        agrees(case, prefixes, splits=5)


def captured(call: Callable[[], Any]) -> Callable[[], Any]:
    """`call` as a CUDA graph; where there is no GPU, `call` itself."""
    if DEVICE == "cpu":
        return call
    call()  # compile
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def test_one_graph_serves_all_batches() -> None:
    """What is captured holds addresses and sizes; tables, rows and lengths change under it."""
    pad = Batch(FAMILIES.chains[:5], FAMILIES.own[:5])
    batches = [FAMILIES, Batch([[]] * 8, [3, 9, 1, 1, 1, 1, 1, 1]), pad, FAMILIES]
    prefixes = PrefixTables.allocate(roomy(8), DEVICE)
    static = [tensor.clone() for tensor in FAMILIES.arguments()]
    static[4] = torch.zeros(2048, dtype=torch.int64, device=DEVICE)
    out = torch.empty_like(static[0])
    workspace = Workspace.allocate(*static[:3], prefixes, splits=2)
    replay = captured(
        lambda: shared_prefix_decode(*static, prefixes, workspace, out=out, tile=SMALL)
    )
    for seed, batch in enumerate(batches):
        case = batch.arguments(seed=seed)
        rows, used = len(case[0]), len(case[4])
        for at, new in enumerate(case[:3]):
            static[at][: len(new)].copy_(new)
        static[3][: rows + 1].copy_(case[3])
        static[3][rows + 1 :] = used  # rows that pad the batch have no keys
        static[4][:used].copy_(case[4])
        prefixes.fill(plan_pieces(batch.chains, prefixes.capacity, least=16, min_saved=1))
        out.fill_(float("nan"))
        replay()
        check(out[:rows], exact(shared_prefix_decode_reference, case))
        assert (out[rows:] == 0).all()


def test_rows_without_keys_get_zeros() -> None:
    case = Batch([[], []], [0, 3]).arguments()
    got = shared_prefix_decode(*case)
    assert (got[0] == 0).all()
    check(got, exact(shared_prefix_decode_reference, case))


@pytest.mark.parametrize("size", [60.0, -60.0])
@pytest.mark.parametrize("part", [slice(0, 16), slice(16, 40), slice(40, 61)], ids=str)
def test_scores_far_apart_merge_exactly(part: slice, size: float) -> None:
    """One part of a row decides, or all but one do."""
    prefixes = tables(PAIR, roomy(3), least=16, min_saved=1)
    case = [*PAIR.arguments(Heads(1, 2, 16, 16))]
    case[0] = torch.ones_like(case[0])
    case[1] = case[1].clone()
    case[1][case[4][part]] = size / 4
    agrees(tuple(case), prefixes)
