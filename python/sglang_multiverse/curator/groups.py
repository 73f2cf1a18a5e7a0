"""Which adjacent steps may run side by side: a pure function of the dependency graph.

Steps 0 … n-1 stand in the order of the text. A *group* is a stretch of adjacent
steps cut into two or more adjacent *runs* (its paths) such that no edge joins
two runs. The runs of a stretch are as short as its edges allow, and are
arranged the same way inside, so that groups nest. Of all ways to cut the steps
into single steps and groups, `arrange` takes the one with the shortest critical
path (the longest chain of steps, by weight), and of those the one with the
fewest parts. So groups are maximal: a step beside a group that depends on
nothing in it, and on which nothing in it depends, would shorten the critical
path as one more path, and so would two neighbouring groups made one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .steps import Edges


@dataclass(frozen=True, slots=True)
class Group:
    """Two or more runs without an edge between any two of them."""

    paths: tuple[Run, ...]


Run = tuple[int | Group, ...]
"""Single steps and groups, one after the other."""


class _Best(NamedTuple):
    cost: int
    parts: int
    last: int  # where the last part starts


def arrange(weights: Sequence[int], edges: Edges) -> Run:
    """The best arrangement of `len(weights)` steps.

    Args:
        weights: of each step, at least 1; for example its characters.
        edges: pairs (used, user), used < user.
    """
    n = len(weights)
    # best[lo][hi]: of the steps [lo, hi), shorter stretches first.
    best: list[dict[int, _Best]] = [{lo: _Best(0, 0, lo)} for lo in range(n + 1)]
    runs: dict[tuple[int, int], list[tuple[int, int]]] = {}
    costs: dict[tuple[int, int], int] = {}
    for length in range(1, n + 1):
        for lo in range(n - length + 1):
            hi = lo + length
            found = _cut(lo, hi, edges)
            runs[lo, hi] = found
            if length == 1:
                costs[lo, hi] = weights[lo]
            elif len(found) > 1:
                costs[lo, hi] = max(best[a][b].cost for a, b in found)
            best[lo][hi] = min(
                _Best(best[lo][k].cost + costs[k, hi], best[lo][k].parts + 1, k)
                for k in range(lo, hi)
                if (k, hi) in costs
            )

    def unfold(lo: int, hi: int) -> Run:
        parts: list[int | Group] = []
        while hi > lo:
            start = best[lo][hi].last
            if hi - start == 1:
                parts.append(start)
            else:
                parts.append(Group(tuple(unfold(a, b) for a, b in runs[start, hi])))
            hi = start
        return tuple(reversed(parts))

    return unfold(0, n)


def _cut(lo: int, hi: int, edges: Edges) -> list[tuple[int, int]]:
    """The steps `[lo, hi)` cut wherever no edge among them crosses."""
    crossed = [False] * (hi - lo)
    for used, user in edges:
        if lo <= used and user < hi:
            crossed[used - lo + 1 : user - lo + 1] = [True] * (user - used)
    cuts = [lo + i for i in range(1, hi - lo) if not crossed[i]]
    return list(zip([lo, *cuts], [*cuts, hi], strict=True))


def critical(run: Run, weights: Sequence[int]) -> int:
    """The weight of the longest chain of steps."""
    return sum(
        weights[part]
        if isinstance(part, int)
        else max(critical(path, weights) for path in part.paths)
        for part in run
    )


def steps_of(run: Run) -> list[int]:
    """Every step of a run, in order."""
    return [
        step
        for part in run
        for step in (
            [part] if isinstance(part, int) else [s for path in part.paths for s in steps_of(path)]
        )
    ]
