"""What a step did to the families in it, and how a family ends."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT

from . import logprobs, step
from .rows import extends_in
from .stage import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sglang.srt.managers.schedule_batch import ScheduleBatch

    from .family import Family
    from .req import MultiverseReq
    from .scheduler import MultiverseScheduler

logger = logging.getLogger(__name__)


class Results:
    """Acts on what SGLang has read of a step, one family at a time."""

    def __init__(self, scheduler: MultiverseScheduler) -> None:
        self.scheduler = scheduler

    def take(self, batch: ScheduleBatch, rows: Sequence[MultiverseReq]) -> None:
        """Let families act on a step, of which `rows` have a result."""
        scheduler = self.scheduler
        extended = {id(req) for req in batch.reqs[: extends_in(batch)]}
        _account_prefill(batch)
        stepped: dict[Family, list[MultiverseReq]] = {}
        for req in rows:
            if extended and id(req) in extended:
                req.extending -= 1
                req.family.restless = True
            if req.news:
                logprobs.settle(req)
                stepped.setdefault(req.family, []).append(req)
        streamed = {id(req) for req in batch.reqs}
        grown: list[MultiverseReq] = []
        for family, reqs in stepped.items():
            if len(extended) < len(batch.reqs):
                decoded = (req for req in reqs if id(req) not in extended)
                family.note_concurrent(sum(req.is_branch for req in decoded))
            try:
                self._settle(family, reqs)
            except Exception as error:  # an error of ours must not take the others down
                self.fail(family, error)
                continue
            moved = any(req.stage is not Stage.DECODE for req in reqs)
            scheduler.leaving |= moved
            if scheduler.metrics is not None and (moved or family.waits):
                scheduler.metrics.family_stepped(family)
            if not family.trunk.finished() and id(family.trunk) not in streamed:
                grown.append(family.trunk)
        if grown:
            any_logprob = any(trunk.return_logprob for trunk in grown)
            scheduler.output_streamer.stream_output(grown, any_logprob)

    def _settle(self, family: Family, stepped: list[MultiverseReq]) -> None:
        trunk = family.trunk
        if trunk.finished():
            self._ended(family)
            return
        if family.error is not None:
            raise family.error
        step.settle(family, stepped)
        if family.ending is not None:
            self.finish(family, family.ending)
        elif family.forked or trunk.stage is Stage.EXTEND:
            self.scheduler.families[trunk.rid] = family
            family.kept = trunk
        elif trunk.stage is Stage.DECODE:
            self.forget(trunk.rid)

    def finish(self, family: Family, reason: Any) -> None:
        """End a family at once and tell the client."""
        trunk = family.trunk
        family.finish(reason)
        self.scheduler.leaving = True
        self._ended(family)
        self.scheduler.output_streamer.stream_output([trunk], trunk.return_logprob)

    def fail(self, family: Family, error: Exception) -> None:
        """An error of ours in one family ends that family, with a 500, and no other."""
        logger.error("Request %s failed", family.trunk.rid, exc_info=error)
        self.finish(
            family,
            FINISH_ABORT(f"Internal error: {error}", HTTPStatus.INTERNAL_SERVER_ERROR),
        )

    def forget(self, rid: str) -> None:
        """SGLang has the whole request again, or nobody has."""
        family = self.scheduler.families.pop(rid, None)
        if family is not None:
            family.kept = None
            if self.scheduler.metrics is not None:
                self.scheduler.metrics.family_left(rid)

    def _ended(self, family: Family) -> None:
        self.forget(family.trunk.rid)
        if self.scheduler.metrics is not None:
            self.scheduler.metrics.family_ended(family)


def _account_prefill(batch: ScheduleBatch) -> None:
    for row in range(extends_in(batch)):
        family = getattr(batch.reqs[row], "family", None)
        if family is not None:
            family.prefilled += batch.extend_lens[row]
