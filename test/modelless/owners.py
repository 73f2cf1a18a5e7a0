"""Every slot and row has one owner, at any time (DESIGN.md §4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from sglang_multiverse.engine.req import MultiverseReq
from sglang_multiverse.structure import Automaton


def check_owners(scheduler: Any, slots: int, rows: int) -> None:
    """Raise `AssertionError` unless each slot of `[1, slots]` and row of `[1, rows]` has one owner.

    Besides that a branch's row begins with its parent's slots, a trunk's with the
    tree's, and the next token's position is the one that §3 defines for the text.
    """
    owned: list[tuple[str, torch.Tensor]] = []
    page = scheduler.page_size
    # Where a page is one slot, it is called by the slot's number.
    slots //= page

    def own(found: torch.Tensor, owner: str) -> None:
        owned.append((owner, found.long() if page == 1 else torch.unique(found.long() // page)))

    table = scheduler.req_to_token_pool.req_to_token
    allocator, tree = scheduler.token_to_kv_pool_allocator, scheduler.tree_cache
    freed = (allocator.release_pages,) if page == 1 else allocator.staged_pages
    owned.extend(("free", free.long()) for free in (allocator.free_pages, *freed))
    if tree.supports_prefix_sharing():
        own(tree.all_values_flatten(), "tree")
    in_tree = torch.zeros(slots + 1, dtype=torch.bool)
    if tree.supports_prefix_sharing():
        in_tree[owned[-1][1]] = True
    used: list[int] = []
    for req in _holders(scheduler):
        if isinstance(req, MultiverseReq) and req.slots is not None:
            own(req.slots, req.rid)
            continue
        kv = req.kv
        used.append(kv.req_pool_idx)
        n = kv.cache_protected_len
        assert n <= kv.kv_committed_len == kv.kv_allocated_len
        row = table[kv.req_pool_idx, : kv.kv_allocated_len].long()
        own(row[n:], req.rid)
        places = torch.arange(len(row)) % page
        assert torch.equal(row % page, places), f"{req.rid}: a token is not in its place of a page"
        if isinstance(req, MultiverseReq) and req.parent is not None:
            parent = req.parent.kv
            assert parent.holds_kv and n <= parent.kv_committed_len, req.rid
            assert torch.equal(row[:n], table[parent.req_pool_idx, :n].long()), req.rid
        else:
            assert in_tree[row[:n] // page].all(), req.rid
        _check_position(req)
    counts = torch.bincount(torch.cat([found for _, found in owned]), minlength=slots + 1)
    wrong = (counts[1:] != 1).nonzero().flatten() + 1
    if len(wrong):
        slot = int(wrong[0])
        owners = [owner for owner, found in owned if slot in found]
        raise AssertionError(f"slot {slot} is owned by {owners or 'nobody'}")
    assert sorted([*used, *scheduler.req_to_token_pool.free_slots]) == list(range(1, rows + 1))


def _holders(scheduler: Any) -> Iterator[Any]:
    """Every request and branch that holds slots, once."""
    last = scheduler.last_batch
    found = {
        id(req): req
        for req in (
            *scheduler.running_batch.reqs,
            *(last.reqs if last is not None else ()),
            *((scheduler.chunked_req,) if scheduler.chunked_req is not None else ()),
            *(member for family in scheduler.families.values() for member in family.members()),
        )
    }
    for req in found.values():
        if req.kv.holds_kv or getattr(req, "slots", None) is not None:
            yield req


def _check_position(req: Any) -> None:
    if not isinstance(req, MultiverseReq):
        return
    n = req.row_len
    if n > req.seqlen or (req.is_branch and req.closed and n == req.seqlen):
        return  # what follows a branch is its siblings'
    reading = Automaton(req.family.vocabulary.tags)
    reading.feed(req.ids()[:n])
    assert n + req.position_offset == reading.position, req.family.describe()
