"""What the step just processed did to a family: fork, close, go on, join."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import fork
from .join import close, join_ready
from .stage import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .family import Family
    from .req import MultiverseReq


def settle(family: Family, stepped: Sequence[MultiverseReq]) -> None:
    """Act on what a step did to `stepped`, the rows of `family` that were part of it."""
    for req in stepped:
        _settle_one(family, req)
    family.flush()
    if family.ending is None and any(req.stage is not Stage.DECODE for req in stepped):
        join_ready(family)


def _settle_one(family: Family, req: MultiverseReq) -> None:
    if req.finished() or family.ending is not None:
        return
    if req.stage is Stage.DRAIN:
        if not req.is_drained:
            return
        if req.closed:
            close(family, req)
        else:
            # All of `req` has KV and ends with `</Goal>`.
            fork.spawn(req)
    elif req.sampled is None and req.stage in (Stage.QUEUED, Stage.EXTEND):
        _advance(family, req)


def _advance(family: Family, req: MultiverseReq) -> None:
    """An extend of known ids is done: go on to the next piece of known text."""
    at = req.row_len
    if at < req.target or req.extending:
        return  # a chunk; the next one follows, or is in flight
    if req.fork_points and req.fork_points[0].goal_end == at:
        fork.replay(req, req.fork_points.pop(0))
    elif req.children:
        req.become(Stage.PARKED)  # retracted while parked, and back
    elif req.closed:
        close(family, req)
