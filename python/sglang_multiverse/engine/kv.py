"""Who owns which KV slot while a request forks and joins.

A row of `req_to_token` lists the slots a sequence attends to. In SGLang's terms
the tree owns `[0, cache_protected_len)` of a row and the request owns
`[cache_protected_len, kv_allocated_len)`. A branch's row reads the same way,
with the parent in the tree's place: `[0, cache_protected_len)` is borrowed from
the parent's row, which keeps it alive, and the rest is the branch's own. So
SGLang's release frees exactly what a branch appended, whatever the moment.

Rows are as scarce as slots. A branch that has closed computes nothing any more:
it gives its row back and keeps the numbers of its slots until the join.

With pages (`--page-size` above 1) token `i` of a row stands at place `i % page` of
its page, and a page has one owner. So a branch whose parent ends amid a page begins
with a copy of that part of the page, and at the join its pages are the parent's only
where they continue it: the first branch's do, of the others the KV is copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.managers.schedule_batch import ReqKvInfo
from sglang.srt.mem_cache.common import evict_from_tree_cache

if TYPE_CHECKING:
    from .family import Family


class RowsExhaustedError(RuntimeError):
    """No row is free; admission must have checked."""


class SlotsExhaustedError(RuntimeError):
    """No page is free; admission must have checked."""


class RowlessSlots(ReqKvInfo):
    """SGLang's record of slots that a closed branch owns without a row, for its pool check."""

    @property
    def holds_kv(self) -> bool:
        return True


class Memory:
    """Rows and slots as they change owner.

    Attributes:
        pool: the table of rows.
        tree_cache: the radix tree.
        page: tokens of a page; 1 where slots are handed out one by one.
        moves: `(to, from)`, int64 `[n]` each: KV to copy before the next forward.
            Nothing reads or writes these slots earlier, whoever owns them by then.
            Later moves may read what earlier ones wrote.
    """

    def __init__(self, pool: Any, tree_cache: Any) -> None:
        self.pool = pool
        self.tree_cache = tree_cache
        self.allocator = tree_cache.token_to_kv_pool_allocator
        self.page = int(tree_cache.page_size)
        self.moves: list[tuple[torch.Tensor, torch.Tensor]] = []

    def borrow_row(self, parent: Any, child: Any) -> None:
        """Give `child` a row over its parent's prefix.

        `[0, n)` borrowed from the parent, `n` the parent's length; nothing owned yet.
        With pages, `[0, n - n % page)` borrowed and the rest a copy that `child` owns.
        """
        rows = self.pool.alloc_rows(1)
        if rows is None:
            raise RowsExhaustedError(f"no row is free for branch {child.rid}")
        n = parent.kv.kv_committed_len
        tail = n % self.page
        table, row = self.pool.req_to_token, rows[0]
        table[row, :n] = table[parent.kv.req_pool_idx, :n]
        child.kv.req_pool_idx = row
        child.kv.kv_allocated_len = child.kv.kv_committed_len = n - tail
        child.kv.cache_protected_len = n - tail
        if tail:
            own = self._pages(1, child.rid)[:tail]
            self.moves.append((own, table[row, n - tail : n].long()))
            table[row, n - tail : n] = own
            child.kv.kv_allocated_len = child.kv.kv_committed_len = n
        child.prefix_len = n
        # Not known earlier: a retracted parent comes back by way of its earlier blocks.
        child.position_offset = parent.position_offset
        child.last_node = parent.last_node
        child.lock = None

    def close_row(self, child: Any) -> None:
        """A closed branch gives its row back and keeps its slots.

        Before: the row owns `[protected, n)`. After: `child.slots` are those of the
        branch's own tokens, in the same order, and stand for their pages; the row is free.
        """
        lo, hi = child.kv.cache_protected_len, child.kv.kv_allocated_len
        lo += self._tail(child)
        child.slots = self.pool.req_to_token[child.kv.req_pool_idx, lo:hi].clone()
        self.pool.free(child)
        child.kv.kv_committed_len = child.kv.cache_protected_len = 0
        child.kv.mark_kv_released()

    def free_slots(self, child: Any) -> None:
        """`child.slots` go back to the free list."""
        self._free(child.slots.long(), self._tail(child))
        child.slots = None

    def join_rows(self, parent: Any, children: Sequence[Any]) -> None:
        """Move every closed child's slots behind the parent's, in order.

        Before: parent owns `[protected, n)`, child `k` owns its `len_k` slots.
        After: parent owns `[protected, n + Σ len_k)`; the children own nothing.
        Only indices are copied; with pages also the KV of all children but the first.
        """
        table, row = self.pool.req_to_token, parent.kv.req_pool_idx
        at = n = parent.kv.kv_committed_len
        tail = n % self.page
        for child in children:
            own = child.slots
            if at > n and self.page > 1:
                own = self._continued(own.long(), tail, at, table[row, at - 1])
            elif tail:
                # The child's page begins with a copy of the parent's, and goes on.
                self._free(table[row, n - tail : n].long(), 0)
                table[row, n - tail : n] = own[0] - torch.arange(tail, 0, -1, device=own.device)
            end = at + len(child.slots)
            table[row, at:end] = own
            child.slots = None
            at = end
        parent.kv.kv_allocated_len = parent.kv.kv_committed_len = at
        parent.prefix_len = at

    def held_record(self, child: Any) -> ReqKvInfo:
        """What SGLang's pool check must count for a sequence that holds KV."""
        if child.slots is None:
            record: ReqKvInfo = child.kv
            return record
        n = len(child.slots) + self._tail(child)
        return RowlessSlots(kv_committed_len=n, kv_allocated_len=n)

    def held_records(self, families: Iterable[Family]) -> dict[str, ReqKvInfo]:
        """By rid, of all in `families` that hold KV: they may be in no batch."""
        return {
            member.rid: self.held_record(member)
            for family in families
            for member in family.members()
            if member.holds_slots
        }

    def tokens_for(self, start: int, end: int, *, borrowed: bool = False) -> int:
        """Slots that a row takes from the free list to grow from `start` to `end`.

        `borrowed`: the row begins as `borrow_row` makes it, `start` tokens long.
        """
        held = start // self.page if borrowed else -(-start // self.page)
        return (-(-end // self.page) - held) * self.page

    def _tail(self, branch: Any) -> int:
        """How many tokens in front of its own stand in a branch's first page."""
        return len(branch.origin_input_ids) % self.page if self.page > 1 else 0

    def _pages(self, count: int, owner: str) -> torch.Tensor:
        """int64 `[count · page]`: slots of free pages."""
        evict_from_tree_cache(self.tree_cache, count * self.page)
        slots: torch.Tensor | None = self.allocator.alloc(count * self.page)
        if slots is None:
            raise SlotsExhaustedError(f"no page is free for {owner}")
        return slots

    def _free(self, slots: torch.Tensor, tail: int) -> None:
        """Free consecutive tokens' `slots`, the first at place `tail` of its page."""
        if self.page == 1:
            self.allocator.free(slots)
            return
        first = torch.cat([slots[:1], slots[self.page - tail :: self.page]])
        self.allocator.free_page_ids(first // self.page)

    def _continued(
        self, slots: torch.Tensor, tail: int, at: int, last: torch.Tensor
    ) -> torch.Tensor:
        """Slots in which the KV in `slots` will continue a row that ends with slot `last`.

        The row is `at` tokens long. The pages of `slots` are freed first, which are never
        fewer than it takes.
        """
        self._free(slots, tail)
        n = len(slots)
        rest = min(-at % self.page, n)
        own = last.long() + torch.arange(1, rest + 1, device=slots.device)
        if n > rest:
            pages = self._pages(-(-(n - rest) // self.page), "a join")
            own = torch.cat([own, pages[: n - rest]])
        self.moves.append((own, slots))
        return own


def copy_moved(scheduler: Any) -> None:
    """Before a forward, and on its stream: copy the KV that is to stand elsewhere."""
    memory: Memory = scheduler.memory
    moves, memory.moves = memory.moves, []
    if not moves:
        return
    with scheduler.forward_stream_ctx if scheduler.enable_overlap else nullcontext():
        if scheduler.enable_overlap:
            scheduler.forward_stream.wait_stream(scheduler.schedule_stream)
        for move in moves:
            memory.allocator.get_kvcache().move_kv_cache(*move)
            for used in move:
                if used.is_cuda:
                    # Made on the scheduler's stream, which may not use its memory again yet.
                    used.record_stream(torch.cuda.current_stream())
