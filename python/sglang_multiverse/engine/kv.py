"""Who owns which KV slot while a request forks and joins.

A row of `req_to_token` lists the slots a sequence attends to. In SGLang's terms
the tree owns `[0, cache_protected_len)` of a row and the request owns
`[cache_protected_len, kv_allocated_len)`. A branch's row reads the same way,
with the parent in the tree's place: `[0, cache_protected_len)` is borrowed from
the parent's row, which keeps it alive, and the rest is the branch's own. So
SGLang's release frees exactly what a branch appended, whatever the moment.

Rows are as scarce as slots. A branch that has closed computes nothing any more:
it gives its row back and keeps the numbers of its slots until the join.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sglang.srt.managers.schedule_batch import ReqKvInfo


class RowsExhaustedError(RuntimeError):
    """No row is free; admission must have checked."""


class RowlessSlots(ReqKvInfo):
    """SGLang's record of slots that a closed branch owns without a row, for its pool check."""

    @property
    def holds_kv(self) -> bool:
        return True


def borrow_row(pool: Any, parent: Any, child: Any) -> None:
    """Give `child` a row over its parent's prefix.

    `[0, n)` borrowed from the parent, `n` the parent's length; nothing owned yet.
    """
    rows = pool.alloc_rows(1)
    if rows is None:
        raise RowsExhaustedError(f"no row is free for branch {child.rid}")
    n = parent.kv.kv_committed_len
    row = rows[0]
    pool.req_to_token[row, :n] = pool.req_to_token[parent.kv.req_pool_idx, :n]
    child.kv.req_pool_idx = row
    child.kv.kv_allocated_len = child.kv.kv_committed_len = child.kv.cache_protected_len = n
    child.prefix_len = n
    # Not known earlier: a retracted parent comes back by way of its earlier blocks.
    child.position_offset = parent.position_offset
    child.last_node = parent.last_node
    child.lock = None


def close_row(pool: Any, child: Any) -> None:
    """A closed branch gives its row back and keeps its slots.

    Before: the row owns `[protected, n)`. After: `child.slots` owns the same
    slots, in the same order; the row is free.
    """
    lo, hi = child.kv.cache_protected_len, child.kv.kv_allocated_len
    child.slots = pool.req_to_token[child.kv.req_pool_idx, lo:hi].clone()
    pool.free(child)
    child.kv.kv_committed_len = child.kv.cache_protected_len = 0
    child.kv.mark_kv_released()


def free_slots(allocator: Any, child: Any) -> None:
    """`child.slots` go back to the free list."""
    allocator.free(child.slots.long())
    child.slots = None


def join_rows(pool: Any, parent: Any, children: Sequence[Any]) -> None:
    """Move every closed child's slots behind the parent's, in order. Only indices are copied.

    Before: parent owns `[protected, n)`, child `k` owns its `len_k` slots.
    After: parent owns `[protected, n + Σ len_k)`; the children own nothing.
    """
    row, at = parent.kv.req_pool_idx, parent.kv.kv_committed_len
    for child in children:
        end = at + len(child.slots)
        pool.req_to_token[row, at:end] = child.slots
        child.slots = None
        at = end
    parent.kv.kv_allocated_len = parent.kv.kv_committed_len = at
    parent.prefix_len = at


def held_record(child: Any) -> ReqKvInfo:
    """What SGLang's pool check must count for a sequence that holds KV."""
    if child.slots is None:
        record: ReqKvInfo = child.kv
        return record
    n = len(child.slots)
    return RowlessSlots(kv_committed_len=n, kv_allocated_len=n)
