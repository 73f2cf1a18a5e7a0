"""Rows and slots at a fork and a join, one call at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from sglang.srt.managers.schedule_batch import ReqKvInfo
from sglang.srt.mem_cache.memory_pool import ReqToTokenPool

from sglang_multiverse.engine.kv import Memory, RowsExhaustedError


def sequence(rid: str) -> Any:
    return SimpleNamespace(
        rid=rid,
        kv=ReqKvInfo(),
        prefix_len=0,
        position_offset=0,
        last_node=None,
        lock=object(),
        slots=None,
    )


def memory_of(pool: ReqToTokenPool) -> Memory:
    return Memory(pool, SimpleNamespace(page_size=1, token_to_kv_pool_allocator=None))


def append(pool: ReqToTokenPool, req: Any, *slots: int) -> None:
    at = req.kv.kv_allocated_len
    for i, slot in enumerate(slots):
        pool.req_to_token[req.kv.req_pool_idx, at + i] = slot
    req.kv.kv_allocated_len = req.kv.kv_committed_len = at + len(slots)


def row(pool: ReqToTokenPool, req: Any) -> list[int]:
    slots: list[int] = pool.req_to_token[req.kv.req_pool_idx, : req.kv.kv_allocated_len].tolist()
    return slots


@pytest.fixture
def pool() -> ReqToTokenPool:
    return ReqToTokenPool(3, 16, "cpu", False)


@pytest.fixture
def parent(pool: ReqToTokenPool) -> Any:
    req = sequence("parent")
    pool.alloc([req])
    append(pool, req, 11, 12, 13)
    req.kv.cache_protected_len = 2
    req.last_node, req.position_offset = "node", -4
    return req


def test_a_borrowed_row_reads_the_parents_slots_and_owns_none(
    pool: ReqToTokenPool, parent: Any
) -> None:
    child = sequence("child")
    memory_of(pool).borrow_row(parent, child)
    assert row(pool, child) == [11, 12, 13]
    assert child.kv.req_pool_idx != parent.kv.req_pool_idx
    assert child.kv.cache_protected_len == child.kv.kv_allocated_len == child.prefix_len == 3
    assert child.last_node == "node" and child.lock is None
    assert child.position_offset == -4
    assert parent.kv.cache_protected_len == 2


def test_a_join_moves_the_branches_own_slots_in_order(pool: ReqToTokenPool, parent: Any) -> None:
    children = [sequence("1"), sequence("2")]
    for child in children:
        memory_of(pool).borrow_row(parent, child)
    append(pool, children[1], 31)
    append(pool, children[0], 21, 22)
    rows = {child.kv.req_pool_idx for child in children}
    for child in children:
        memory_of(pool).close_row(child)
    assert [child.slots.tolist() for child in children] == [[21, 22], [31]]
    assert rows <= set(pool.free_slots)
    memory_of(pool).join_rows(parent, children)
    assert row(pool, parent) == [11, 12, 13, 21, 22, 31]
    assert parent.kv.kv_committed_len == parent.prefix_len == 6
    assert parent.kv.cache_protected_len == 2
    for child in children:
        assert child.slots is None
        assert not child.kv.holds_kv and child.kv.is_kv_released
        assert child.kv.cache_protected_len == child.kv.kv_committed_len == 0


def test_no_row_is_an_error_that_takes_nothing(pool: ReqToTokenPool, parent: Any) -> None:
    for name in "12":
        memory_of(pool).borrow_row(parent, sequence(name))
    last = sequence("3")
    with pytest.raises(RowsExhaustedError, match="3"):
        memory_of(pool).borrow_row(parent, last)
    assert not last.kv.holds_kv and last.kv.is_kv_released
