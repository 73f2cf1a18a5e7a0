"""Reduce: the slots of closed branches become their parent's (DESIGN.md §4)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sglang.srt.managers.schedule_batch import FINISH_LENGTH

from ..structure import Phase
from .fork import force
from .metrics import Wait
from .reading import room
from .stage import Stage

if TYPE_CHECKING:
    from .family import Family
    from .req import MultiverseReq


class InvariantError(RuntimeError):
    """The engine's account of a family and the language's differ: a bug, never the user's."""


def join_ready(family: Family) -> None:
    """Join, from the leaves up, every sequence whose branches are all closed."""
    for req in reversed(list(family.members())):
        if req.stage is Stage.PARKED and all(c.stage is Stage.CLOSED for c in req.children):
            join(req)


def close(family: Family, req: MultiverseReq) -> None:
    """All of a finished branch has KV: it waits for its siblings, without a row."""
    family.memory.close_row(req)
    req.become(Stage.CLOSED)


def join(req: MultiverseReq) -> None:
    family = req.family
    family.flush(req)
    children = req.children
    ends = [child.row_len + child.position_offset for child in children]
    family.memory.join_rows(req, children)
    req.position_offset = max(ends) - req.row_len
    if not req.replaying:
        for child in children:
            req.automaton.feed(child.output_ids)
        if (
            req.automaton.length != req.row_len
            or req.automaton.position != req.row_len + req.position_offset
        ):
            raise InvariantError(
                f"{req.rid}: joined to {req.row_len} tokens ending at position "
                f"{req.row_len + req.position_offset}, read as {req.automaton.length} "
                f"ending at {req.automaton.position}"
            )
        # Branches that a prompt closed have read no tag here.
        begun = max(child.tag_read_at for child in children) or time.perf_counter()
        req.wait = Wait("join_seconds", begun)
    req.unpark()
    req.become(Stage.EXTEND)
    if req.children or req.row_len < req.seqlen:
        return
    if family.scores is not None and family.scores.alone:
        # The text may end amid a block, and is only scored.
        if req.closed:
            close(family, req)
        else:
            family.ending = FINISH_LENGTH(length=family.generated)
    elif req.automaton.phase is Phase.TAIL:
        header = family.vocabulary.conclusion_header
        left = room(family, req.automaton)
        force(req, header[:left])
        if left <= len(header):
            family.ending = FINISH_LENGTH(length=family.generated)
