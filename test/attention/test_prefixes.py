"""The tables of each batch size: when they are filled, and what memory they take."""

from __future__ import annotations

from itertools import product
from unittest.mock import patch

import pytest
import torch

from sglang_multiverse.attention import prefixes as module
from sglang_multiverse.attention.prefixes import ChainsError, Shape, SharedPrefixes
from sglang_multiverse.kernels.grouping import Link
from sglang_multiverse.kernels.prefix_tables import PrefixTables

QWEN_7B = Shape(heads=28, kv_heads=4, d=128, dv=128, dtype=torch.bfloat16)


def of(count: int, stop: int = 1000) -> list[tuple[Link, ...]]:
    return [(Link("prompt", stop),)] * count


@pytest.fixture
def prefixes() -> SharedPrefixes:
    return SharedPrefixes(QWEN_7B, "cpu", programs=264)


def test_nothing_is_shared_until_it_is_worth_it(prefixes: SharedPrefixes) -> None:
    for chains, shared in (((), False), (of(2, 100), False), (of(2), True), (of(1), False)):
        prefixes.expect(chains)
        assert prefixes.shared is shared


def test_tables_are_filled_when_the_chains_are_others(prefixes: SharedPrefixes) -> None:
    first, second = of(3), of(3)
    with patch.object(PrefixTables, "fill", autospec=True, side_effect=PrefixTables.fill) as fill:
        for chains, count in ((first, 1), (first, 1), (second, 2), (first, 3)):
            prefixes.expect(chains)
            step = prefixes.filled(3, 4)
            assert fill.call_count == count
        # Another batch size has tables of its own.
        assert prefixes.filled(3, 8) is not step
        assert fill.call_count == 4
        assert prefixes.filled(3, 4) is step
        assert fill.call_count == 4
    assert step.tables.suffix_start.tolist() == [1000, 1000, 1000, 0]


def test_chains_of_more_rows_than_the_step_has(prefixes: SharedPrefixes) -> None:
    prefixes.expect(of(5))
    with pytest.raises(ChainsError, match="of 5 rows; the step has 4"):
        prefixes.filled(4, 8)


def test_batches_share_their_memory(prefixes: SharedPrefixes) -> None:
    prefixes.reserve(64)
    steps = [prefixes.step(rows) for rows in (1, 7, 64)]
    assert len({step.workspace.out.data_ptr() for step in steps}) == 1
    for rows, step in zip((1, 7, 64), steps, strict=True):
        slots = step.workspace.splits + step.tables.capacity.states
        assert step.workspace.out.shape == (rows, 28, slots, 128)
        assert step.workspace.lse.shape == (rows, 28, slots)
        out, lse = step.workspace.out, step.workspace.lse
        assert lse.data_ptr() == out.data_ptr() + 4 * out.numel()
    # What is larger has its own.
    assert prefixes.step(1024).workspace.out.data_ptr() != steps[0].workspace.out.data_ptr()


def test_few_kernels_are_compiled(prefixes: SharedPrefixes) -> None:
    """By what Triton compiles for: the number of splits, and strides that are multiples of 16."""
    with patch.object(module, "suffix_splits") as best:
        for best.return_value in (1, 2, 4, 8, 16, 32):
            for rows in (1, 3, 8, 100, 256):
                step = prefixes.step(rows)
                assert step.workspace.splits in (1, 4, 16)
                assert step.workspace.lse.shape[2] % 16 == 0
                assert step.tables.capacity.states >= module.FEWEST_STATES
            prefixes._steps.clear()


def test_the_memory_of_all_graphs_is_small(prefixes: SharedPrefixes) -> None:
    """Of a 7B model at 256 rows; a layer's KV of one such batch at 2,000 tokens is 1 GiB."""
    prefixes.reserve(256)
    assert prefixes._memory.nbytes < 128 << 20


def test_one_family_fills_the_card(prefixes: SharedPrefixes) -> None:
    """A prefix of any length is cut into enough programs, at every batch size."""
    for rows, tokens in product((2, 8, 16, 64, 256), (8_000, 32_000)):
        prefixes.expect(of(rows, tokens))
        tables = prefixes.filled(rows, rows).tables
        used = int((tables.pieces[:, 1] > tables.pieces[:, 0]).sum())
        assert used >= prefixes.wanted // 2, (rows, tokens, used)


def test_rows_too_wide_to_stack_share_nothing() -> None:
    """64 query heads for each KV head in fp32: a program has no room for a second row."""
    prefixes = SharedPrefixes(Shape(64, 1, 64, 64, torch.float32), "cpu", programs=264)
    prefixes.expect(of(8))
    assert not prefixes.shared
