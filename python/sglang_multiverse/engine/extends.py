"""The ready queue: sequences whose known ids wait for their KV, and the batch made of them.

Headers, conclusions, and known text of all families go in one extend, in order:
families by priority, then arrival; within one, in outline order, a branch's own
branches before its next sibling. Whoever comes first in that order always gets
on, and whoever comes last gives way (`pressure`), so that waiting ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from sglang.srt.managers.schedule_batch import ScheduleBatch

from . import scoring
from .join import InvariantError
from .stage import Stage

if TYPE_CHECKING:
    from .family import Family
    from .req import MultiverseReq
    from .scheduler import MultiverseScheduler

# Slots kept free per decoding row when a branch is admitted beside others, so that
# it is not retracted again a few steps later.
_HEADROOM = 16


class Piece(NamedTuple):
    """The next extend of a sequence: its ids `[start, end)`."""

    req: MultiverseReq
    start: int
    end: int

    @property
    def tokens(self) -> int:
        return self.end - self.start

    @property
    def needs_row(self) -> bool:
        return not self.req.kv.holds_kv


class Extends:
    """Picks what is extended next; counts rows as well as tokens."""

    def __init__(self, scheduler: MultiverseScheduler) -> None:
        self.scheduler = scheduler

    def rank(self, family: Family) -> tuple[int, int]:
        """Families with a smaller rank go first."""
        return self.urgency(family.trunk.priority), family.arrival

    def urgency(self, priority: int | None) -> int:
        scheduler = self.scheduler
        if not scheduler.enable_priority_scheduling or priority is None:
            return 0
        return priority if scheduler.schedule_low_priority_values_first else -priority

    def pending(self) -> list[MultiverseReq]:
        """Sequences that want an extend, in the order in which they get it."""
        found: list[MultiverseReq] = []
        for family in sorted(self.scheduler.families.values(), key=self.rank):
            if not family.restless:
                continue
            waiting = list(_waiting(family))
            family.restless = bool(waiting)
            found.extend(waiting)
        return found

    def newcomer_is_first(self) -> bool:
        """Whether SGLang's queue holds something more urgent than every family that waits."""
        scheduler = self.scheduler
        if not scheduler.enable_priority_scheduling or not scheduler.waiting_queue:
            return False
        scheduler.waiting_queue.sort(key=lambda req: self.urgency(req.priority))
        pending = self.pending()
        newcomer = self.urgency(scheduler.waiting_queue[0].priority)
        return not pending or newcomer < self.urgency(pending[0].priority)

    def next_batch(self, running_batch: ScheduleBatch) -> tuple[ScheduleBatch | None, bool]:
        """One batch of the extends that fit, and whether one had to wait for room."""
        scheduler = self.scheduler
        budget = scheduler.chunked_prefill_size or scheduler.max_prefill_tokens
        busy = len(running_batch.reqs)
        reserve = max(_HEADROOM, scheduler.memory.page)
        room = self.free_tokens() - busy * reserve
        rows = scheduler.req_to_token_pool.available_size()
        picked: list[MultiverseReq] = []
        blocked = False
        for req in self.pending():
            if budget <= 0:
                break
            piece = next_piece(req, budget)
            headroom = reserve if busy or picked else 0
            slots = self._slots(piece)
            if slots + headroom > room or (piece.needs_row and rows == 0):
                blocked = True
                break
            if scheduler.enable_lora and not scheduler.can_schedule_lora_req(
                req, {r.lora_id for r in (*running_batch.reqs, *picked)}
            ):
                continue
            budget -= piece.tokens
            room -= slots + headroom
            rows -= piece.needs_row
            try:
                self._prepare(piece)
            except Exception as error:  # of ours: it ends this family, and no other
                scheduler.results.fail(req.family, error)
                continue
            picked.append(req)
        # A family that failed on the way took its rows with it.
        picked = [req for req in picked if req.kv.holds_kv]
        return (self._batch(picked) if picked else None), blocked

    def _prepare(self, piece: Piece) -> None:
        req, start, end = piece
        if piece.tokens <= 0:
            raise InvariantError(f"nothing to extend: {req.family.describe()}")
        if piece.needs_row:
            self.scheduler.memory.borrow_row(req.parent, req)
        req.prefix_len = req.already_computed = start
        req.extend_end = end
        req.refresh_fill_ids()
        req.set_discards(end)
        if req.return_logprob:
            req.logprob_start_len = scoring.start_of(req)

    def _batch(self, reqs: list[MultiverseReq]) -> ScheduleBatch:
        scheduler = self.scheduler
        batch = ScheduleBatch.init_new(
            reqs,
            scheduler.req_to_token_pool,
            scheduler.token_to_kv_pool_allocator,
            scheduler.tree_cache,
            scheduler.model_config,
            scheduler.enable_overlap,
            scheduler.spec_algorithm,
        )
        batch.prepare_for_extend()
        scoring.tell_next_tokens(batch)
        return batch

    def mix(self, batch: ScheduleBatch, running: ScheduleBatch) -> ScheduleBatch:
        """With `--enable-mixed-chunk`, let the rows that decode do so beside our extend.

        On SGLang's conditions for its own. Returns what is left of the running batch.
        """
        scheduler = self.scheduler
        if (
            not scheduler.is_mixed_chunk
            or batch.return_logprob
            or running.return_logprob
            or any(req.beam_group is not None for req in running.reqs)
        ):
            return running
        finishing = scheduler._reqs_finishing_inflight(running)
        running.filter_batch(reqs_to_exclude=finishing)
        if finishing:
            running.batch_is_full = False
        if running.is_empty() or not running.check_decode_mem():
            return running
        running.prepare_for_decode()
        batch.mix_with_running(running)
        batch.decoding_reqs = running.reqs
        return ScheduleBatch(reqs=[], batch_is_full=running.batch_is_full)

    def free_tokens(self) -> int:
        scheduler = self.scheduler
        return int(
            scheduler.token_to_kv_pool_allocator.available_size()
            + scheduler.tree_cache.evictable_size()
        )

    def _slots(self, piece: Piece) -> int:
        memory = self.scheduler.memory
        return memory.tokens_for(piece.start, piece.end, borrowed=piece.needs_row)

    def fits(self, req: MultiverseReq) -> bool:
        """Whether the next piece of `req`, or the first token of it, finds room now."""
        piece = next_piece(req, self.scheduler.chunked_prefill_size or req.target)
        rows = self.scheduler.req_to_token_pool.available_size()
        return self._slots(piece) <= self.free_tokens() and (rows > 0 or not piece.needs_row)


def next_piece(req: MultiverseReq, budget: int) -> Piece:
    """It starts after the row of `req`, or after the prefix it will borrow."""
    start = req.row_len if req.parent is None or req.kv.holds_kv else req.parent.row_len
    return Piece(req, start, min(req.target, start + budget))


def _waiting(family: Family) -> Iterator[MultiverseReq]:
    """In outline order, in waves of `max_parallel_branches` a block."""
    seats: dict[int, int] = {}  # of each parent's block, by the parent's identity
    for req in family.members():
        if req.stage is Stage.PARKED:
            at_work = sum(child.kv.holds_kv for child in req.children)
            seats[id(req)] = family.options.max_parallel_branches - at_work
        if req.stage is not Stage.EXTEND or req.extending:
            continue
        if req.kv.holds_kv:
            yield req
        elif req.parent is not None and req.parent.kv.holds_kv and seats.get(id(req.parent), 0) > 0:
            seats[id(req.parent)] -= 1
            yield req
