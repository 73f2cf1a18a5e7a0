"""Rows and KV at a fork and a join where slots come in pages, on SGLang's own pools.

What stands in a slot is checked after the copies that a forward begins with. Whole
schedules are in `test_schedule.py`, a model's answers in `test_overlap.py`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sglang.srt.managers.schedule_batch import ReqKvInfo
from sglang.srt.mem_cache.allocator.paged import PagedTokenToKVPoolAllocator
from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool, ReqToTokenPool

from sglang_multiverse.engine.kv import Memory, SlotsExhaustedError, copy_moved

PAGE = 4


class World:
    """A pool of `pages` pages, and rows whose KV says which token it is of."""

    def __init__(self, pages: int) -> None:
        slots = pages * PAGE
        self.kv = MHATokenToKVPool(
            slots, PAGE, torch.float32, 1, 1, 1, "cpu", False, enable_alt_stream=False
        )
        self.kv.use_native_move_kv_cache = True
        self.allocator = PagedTokenToKVPoolAllocator(
            slots, PAGE, torch.float32, "cpu", self.kv, False
        )
        self.rows = ReqToTokenPool(8, 256, "cpu", False)
        tree = SimpleNamespace(
            page_size=PAGE,
            token_to_kv_pool_allocator=self.allocator,
            supports_prefix_sharing=lambda: False,
        )
        self.memory = Memory(self.rows, tree)
        self.scheduler: Any = SimpleNamespace(memory=self.memory, enable_overlap=False)

    def sequence(self, rid: str, n: int = 0) -> Any:
        """A trunk of `n` tokens, or what a branch over `n` tokens is before it has a row."""
        return SimpleNamespace(
            rid=rid,
            kv=ReqKvInfo(),
            origin_input_ids=range(n),
            prefix_len=0,
            position_offset=0,
            last_node=None,
            lock=None,
            slots=None,
        )

    def trunk(self, n: int) -> Any:
        req = self.sequence("trunk")
        self.rows.alloc([req])
        req.kv.kv_committed_len = req.kv.kv_allocated_len = 0
        self.append(req, [float(i) for i in range(n)])
        return req

    def append(self, req: Any, values: list[float]) -> None:
        """As a forward does: copy what was moved, then write the new tokens' KV."""
        copy_moved(self.scheduler)
        start, end = req.kv.kv_committed_len, req.kv.kv_committed_len + len(values)
        row = self.rows.req_to_token[req.kv.req_pool_idx]
        last = row[start - 1] if start else torch.tensor(-1)
        slots = self.allocator.alloc_extend(
            *(torch.tensor([start]),) * 2,
            *(torch.tensor([end]),) * 2,
            last.long()[None],
            len(values),
        )
        assert slots is not None
        row[start:end] = slots
        self.kv.k_buffer[0][slots, 0, 0] = torch.tensor(values)
        req.kv.kv_committed_len = req.kv.kv_allocated_len = end

    def values(self, req: Any) -> list[float]:
        copy_moved(self.scheduler)
        row = self.rows.req_to_token[req.kv.req_pool_idx, : req.kv.kv_committed_len].long()
        assert torch.equal(row % PAGE, torch.arange(len(row)) % PAGE)
        found: list[float] = self.kv.k_buffer[0][row, 0, 0].tolist()
        return found

    def pages_of(self, n: int) -> int:
        return -(-n // PAGE)


@settings(max_examples=150, deadline=None)
@given(
    prefix=st.integers(1, 13),
    lengths=st.lists(st.integers(1, 11), min_size=1, max_size=4),
    order=st.randoms(use_true_random=False),
)
def test_a_join_reads_as_one_text_and_wastes_no_page(
    prefix: int, lengths: list[int], order: Any
) -> None:
    needed = -(-prefix // PAGE) + sum(
        -(-(prefix % PAGE + length) // PAGE) for length in lengths
    )  # so many that not one is free when the branches join
    world = World(needed)
    trunk = world.trunk(prefix)
    children = [world.sequence(f"trunk#{k}", prefix) for k in range(len(lengths))]
    for child in children:
        world.memory.borrow_row(trunk, child)
    expected = [[100.0 * k + i for i in range(n)] for k, n in enumerate(lengths, 1)]
    for k in order.sample(range(len(lengths)), len(lengths)):
        world.append(children[k], expected[k])
        assert world.values(children[k]) == [*map(float, range(prefix)), *expected[k]]
    assert world.allocator.available_size() == 0
    for child in children:
        world.memory.close_row(child)
    world.memory.join_rows(trunk, children)
    whole = [float(i) for i in range(prefix)] + [value for part in expected for value in part]
    assert world.values(trunk) == whole
    assert trunk.kv.kv_committed_len == trunk.kv.kv_allocated_len == len(whole)
    used = world.pages_of(len(whole))
    assert world.allocator.available_size() == (needed - used) * PAGE
    # And it goes on as any row does.
    if used < needed:
        world.append(trunk, [-1.0])
        assert world.values(trunk) == [*whole, -1.0]


@given(prefix=st.integers(1, 9), length=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_a_closed_branch_gives_back_all_its_pages(prefix: int, length: int) -> None:
    world = World(12)
    trunk = world.trunk(prefix)
    free = world.allocator.available_size()
    child = world.sequence("trunk#1", prefix)
    taken = world.memory.tokens_for(prefix, prefix + length, borrowed=True)
    world.memory.borrow_row(trunk, child)
    world.append(child, [7.0] * length)
    assert world.allocator.available_size() == free - taken
    world.memory.close_row(child)
    record = world.memory.held_record(child)
    assert world.pages_of(record.kv_allocated_len) * PAGE == taken
    world.memory.free_slots(child)
    assert world.allocator.available_size() == free
    assert len(set(world.allocator.free_pages.tolist())) == len(world.allocator.free_pages)


def test_a_row_that_grows_takes_the_pages_it_enters() -> None:
    memory = World(4).memory
    assert memory.tokens_for(3, 4) == memory.tokens_for(5, 8) == 0
    assert memory.tokens_for(4, 5) == memory.tokens_for(3, 8) == PAGE
    assert memory.tokens_for(3, 4, borrowed=True) == PAGE
    assert memory.tokens_for(4, 9, borrowed=True) == 2 * PAGE


def test_no_page_is_an_error() -> None:
    world = World(2)
    trunk = world.trunk(5)
    with pytest.raises(SlotsExhaustedError, match="trunk#1"):
        world.memory.borrow_row(trunk, world.sequence("trunk#1", 5))
