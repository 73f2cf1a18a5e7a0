"""Where text that is already known forks and joins.

Text becomes known before its KV exists in three ways: a prompt that holds
Multiverse blocks, a retracted request, and the answer of an earlier chat turn.
Its KV is computed the way decoding would have: up to `</Goal>`, then the
branches side by side over the shared prefix, then on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from ..structure import Automaton, Interval, Phase, TagTable


class ForkPoint(NamedTuple):
    """One block of known text.

    Attributes:
        goal_end: index after `</Goal>`.
        branches: the known text of each branch, in order, without gaps. A block
            that ends early has one more: the white space laid out as the branch
            that was due, with the tag that ended the block.
        complete: the text goes on past the branches; if not, the last branch
            is still open, or due.
    """

    goal_end: int
    branches: tuple[Interval, ...]
    complete: bool

    @property
    def end(self) -> int:
        """Index after the last known branch token."""
        return self.branches[-1].hi if self.branches else self.goal_end


def fork_points(
    ids: Sequence[int], tags: TagTable, *, depth: int = 0, start: int = 0
) -> list[ForkPoint]:
    """The blocks that open at nesting level `depth` with `</Goal>` at or after `start`.

    `ids` is the text as its reader sees it: for a branch, the visible prefix
    and the branch itself, without its siblings.
    """
    automaton = Automaton(tags)
    points: list[ForkPoint] = []
    bounds: list[int] = []

    def close(end: int, complete: bool) -> None:
        if bounds[0] > start:
            edges = [*bounds, end]
            branches = tuple(Interval(lo, hi) for lo, hi in pairwise(edges) if lo < hi)
            points.append(ForkPoint(bounds[0], branches, complete))
        bounds.clear()

    for i, token in enumerate(ids):
        automaton.push(token)
        frame = automaton.frames[depth] if automaton.depth > depth else None
        if bounds:
            if frame is None or frame.phase not in (Phase.HEAD, Phase.BRANCH):
                close(i + 1, complete=True)
            elif frame.branch_start != bounds[-1]:
                bounds.append(frame.branch_start)
        elif frame is not None and frame.phase is Phase.HEAD and frame.goal_end == i + 1:
            bounds.append(i + 1)
    if bounds:
        close(len(ids), complete=False)
    return points
