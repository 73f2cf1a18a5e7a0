"""When rows or slots run out: who gives way, and what cannot run at all.

The order is the ready queue's (`extends`). The last in it gives way to the
first: the youngest family whole, and within the only one left its last branch.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from sglang.srt.managers.schedule_batch import FINISH_ABORT, Req, ScheduleBatch
from sglang.srt.mem_cache.common import release_kv_cache

from .join import InvariantError
from .req import MultiverseReq
from .stage import Stage

if TYPE_CHECKING:
    from .family import Family
    from .scheduler import MultiverseScheduler

logger = logging.getLogger(__name__)


class Pressure:
    """The one place that takes rows and slots away again."""

    def __init__(self, scheduler: MultiverseScheduler) -> None:
        self.scheduler = scheduler

    # --- who gives way -----------------------------------------------------------

    def make_room(self, batch: ScheduleBatch) -> bool:
        """The next decode step does not fit: one gives way. `False` when only one is left."""
        holders = self._holders(batch)
        if len(holders) > 1:
            self.retract(holders[-1])
            return True
        rows = _decoding(batch)
        return bool(rows) and self._give_way(min(rows, key=lambda req: req.path))

    def make_chunk_fit(self) -> bool:
        """Whether the next chunk of SGLang's chunked prefill fits, when later families gave way.

        SGLang reserves a prompt's slots when its first chunk is admitted; what
        families took since then has to be made up for.
        """
        scheduler = self.scheduler

        def _outranks(req: Req, family: Family) -> bool:
            rank = scheduler.extends.rank
            return isinstance(req, MultiverseReq) and rank(req.family) < rank(family)

        req = scheduler.chunked_req
        end = len(req.full_untruncated_fill_ids)
        if scheduler.chunked_prefill_size:
            end = min(end, req.prefix_len + scheduler.chunked_prefill_size)
        needed = scheduler.memory.tokens_for(req.prefix_len, end)
        while needed > scheduler.extends.free_tokens():
            later = [f for f in self._holders(scheduler.running_batch) if _outranks(req, f)]
            if not later:
                return False
            self.retract(later[-1])
        return True

    def break_jam(self) -> None:
        """Nothing runs and families wait: the last gives its rows back.

        One that cannot run even alone is failed, and so is one that waits for
        nothing, which would be a bug; neither may hang.
        """
        scheduler = self.scheduler
        pending = scheduler.extends.pending()
        if scheduler.chunked_req is not None:
            self._drop_chunk()
        elif not pending:
            if not scheduler.waiting_queue:
                for family in list(scheduler.families.values()):
                    scheduler.results.fail(family, InvariantError(f"stuck: {family.describe()}"))
        elif not scheduler.extends.fits(first := pending[0]):
            holders = [f for f in self._holders() if f is not first.family]
            if holders:
                self.retract(holders[-1])
            elif not self._give_way(first):
                scheduler.results.finish(
                    first.family,
                    FINISH_ABORT(
                        "The KV pool cannot hold this request, even one branch at a time.",
                        HTTPStatus.INTERNAL_SERVER_ERROR,
                    ),
                )

    def preempt_for(self, newcomer: Req) -> bool:
        """Retract the last family, if `newcomer` outranks it by more than SGLang's threshold."""
        scheduler = self.scheduler
        holders = self._holders()
        if not scheduler.enable_priority_preemption or not holders:
            return False
        urgency = scheduler.extends.urgency
        gap = urgency(holders[-1].trunk.priority) - urgency(newcomer.priority)
        if gap <= scheduler.priority_scheduling_preemption_threshold:
            return False
        self.retract(holders[-1])
        return True

    def _holders(self, batch: ScheduleBatch | None = None) -> list[Family]:
        """Families that could give something back, the one that gives way first last."""
        scheduler = self.scheduler
        found = {
            id(family): family
            for family in scheduler.families.values()
            if family.trunk.stage is not Stage.QUEUED and family.holds_slots
        }
        if batch is not None:
            found.update((id(req.family), req.family) for req in _decoding(batch))
        return sorted(found.values(), key=scheduler.extends.rank)

    def _give_way(self, first: MultiverseReq) -> bool:
        """Within one family: the last sequence behind `first` that holds anything gives way.

        Earlier ones stay, closed or not: the join needs all they hold, so a
        request that cannot go on beside them cannot run at all.
        """
        for req in reversed(list(first.family.members())):
            behind = req.path > first.path and req.path[: len(first.path)] != first.path
            if behind and req.holds_slots:
                first.family.retract_from(req)
                self.scheduler.leaving = True
                self._count()
                logger.info("KV pool is full: branch %s waits", req.rid)
                return True
        return False

    # --- how ---------------------------------------------------------------------

    def retract(self, family: Family) -> None:
        """Take everything from a family and queue it again; once queued, nothing more happens.

        A queued trunk is SGLang's, in its queue or in its chunked prefill, and
        its branches hold nothing.
        """
        trunk = family.trunk
        if trunk.stage is Stage.QUEUED or trunk.finished():
            return
        logger.info("Request %s is retracted whole", trunk.rid)
        try:
            family.retract()
        except Exception as error:  # of ours: it ends this family, and no other
            self.scheduler.results.fail(family, error)
            return
        self._count()
        self.scheduler.leaving = True
        self.scheduler.queue_again(trunk)

    def retract_all(self) -> None:
        for family in list(self.scheduler.families.values()):
            self.retract(family)

    def _drop_chunk(self) -> None:
        """The prompt in SGLang's chunked prefill starts again when others have moved on."""
        scheduler = self.scheduler
        req = scheduler.chunked_req
        scheduler.chunked_req = None
        release_kv_cache(req, scheduler.tree_cache, checkpoint=False)
        req.reset_for_retract()
        self._count()
        scheduler.queue_again(req)

    def _count(self) -> None:
        if self.scheduler.metrics is not None:
            self.scheduler.metrics.add("retractions", 1)


def _decoding(batch: ScheduleBatch) -> list[MultiverseReq]:
    return [req for req in batch.reqs if isinstance(req, MultiverseReq) and req.decodes]
