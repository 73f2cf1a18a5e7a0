"""Groups are what the graph says: held against a search through every arrangement."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given

from sglang_multiverse.curator.groups import Group, arrange, critical, steps_of

from .strategies import levels, quick


def pairs_of(*pairs):
    return frozenset(pairs)


def shape(run):
    return [part if isinstance(part, int) else [shape(path) for path in part.paths] for part in run]


@pytest.mark.parametrize(
    ("n", "edges", "expected"),
    [
        (0, pairs_of(), []),
        (1, pairs_of(), [0]),
        (3, pairs_of((0, 1), (1, 2)), [0, 1, 2]),
        (3, pairs_of(), [[[0], [1], [2]]]),
        # understanding, two cases, an answer
        (4, pairs_of((0, 1), (0, 2), (1, 3), (2, 3)), [0, [[1], [2]], 3]),
        # two runs of two
        (6, pairs_of((0, 1), (0, 3), (1, 2), (3, 4), (2, 5), (4, 5)), [0, [[1, 2], [3, 4]], 5]),
        # a group inside a path: 1 → {2, 3} beside 4
        (5, pairs_of((0, 1), (1, 2), (1, 3), (0, 4)), [0, [[1, [[2], [3]]], [4]]]),
        # the step between may stand beside either end; the later group is taken
        (3, pairs_of((0, 2)), [0, [[1], [2]]]),
    ],
)
def test_by_hand(n, edges, expected):
    assert shape(arrange([1] * n, edges)) == expected


def every_cost(lo, hi, weights, edges):
    """The best cost of the steps [lo, hi), by trying every way to cut them and their groups."""
    if hi - lo <= 1:
        return sum(weights[lo:hi])
    best = None
    for count in range(hi - lo):
        for cuts in combinations(range(lo + 1, hi), count):
            parts = list(pairwise([lo, *cuts, hi]))
            costs = [part_cost(a, b, weights, edges) for a, b in parts]
            if None not in costs and (best is None or sum(costs) < best):
                best = sum(costs)
    return best


def part_cost(lo, hi, weights, edges):
    if hi - lo == 1:
        return weights[lo]
    best = None
    for count in range(1, hi - lo):
        for cuts in combinations(range(lo + 1, hi), count):
            runs = list(pairwise([lo, *cuts, hi]))
            home = {step: i for i, (a, b) in enumerate(runs) for step in range(a, b)}
            if all(home[a] == home[b] for a, b in edges if lo <= a and b < hi):
                cost = max(every_cost(a, b, weights, edges) for a, b in runs)
                best = cost if best is None else min(best, cost)
    return best


@quick(60)
@given(levels(most=5))
def test_no_arrangement_is_shorter(level):
    weights, edges = level
    run = arrange(weights, edges)
    assert critical(run, weights) == every_cost(0, len(weights), weights, edges)


@quick(300)
@given(levels())
def test_every_step_once_and_no_edge_between_paths(level):
    weights, edges = level
    run = arrange(weights, edges)
    assert steps_of(run) == list(range(len(weights)))
    hold(run, edges)


def hold(run, edges):
    for before, after in pairwise(run):
        if isinstance(before, Group) and isinstance(after, Group):
            # Maximal: two groups side by side need each other.
            some, others = set(steps_of((before,))), set(steps_of((after,)))
            assert any(a in some and b in others for a, b in edges)
    for part in run:
        if isinstance(part, Group):
            assert len(part.paths) >= 2
            for i, path in enumerate(part.paths):
                for other in part.paths[i + 1 :]:
                    mine, theirs = set(steps_of(path)), set(steps_of(other))
                    assert not any(a in mine and b in theirs for a, b in edges)
                hold(path, edges)


def test_sixty_steps_take_no_time():
    edges = frozenset((a, b) for b in range(60) for a in range(b) if (a * b) % 7 == 0)
    assert steps_of(arrange([1] * 60, edges)) == list(range(60))
