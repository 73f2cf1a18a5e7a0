"""Where known text forks, seen from the trunk and from a branch."""

from __future__ import annotations

import re

import pytest

from sglang_multiverse.engine.replay import ForkPoint, fork_points
from sglang_multiverse.structure import MULTIVERSE, Interval, TagTable

IDS = {tag: 200 + i for i, tag in enumerate(MULTIVERSE.tags)}
TAGS = TagTable.from_ids(MULTIVERSE, IDS)
PLAN = "<Parallel><Goal><Outline>a</Outline><Outline>b</Outline></Goal>"
REST = "<Path>x</Path>\n<Path>yy</Path>"
TAIL = "<Conclusion>c</Conclusion></Parallel>"


def encode(text: str) -> list[int]:
    return [IDS.get(p) or ord(p) for p in re.findall(r"</?[A-Z][a-z]+>|.", text, re.DOTALL)]


def spans(point: ForkPoint) -> list[int]:
    return [branch.hi - branch.lo for branch in point.branches]


def test_plain_text_and_an_open_plan_fork_nowhere() -> None:
    assert fork_points(encode("abc"), TAGS) == []
    assert fork_points(encode(PLAN)[:-1], TAGS) == []


def test_a_block_is_its_goal_and_its_branches() -> None:
    goal = len(encode("q" + PLAN))
    whole = fork_points(encode("q" + PLAN + REST + TAIL), TAGS)
    assert whole == [
        ForkPoint(goal, (Interval(goal, goal + 3), Interval(goal + 3, goal + 8)), True)
    ]
    assert whole[0].end == goal + 8


def test_text_that_ends_in_a_block_leaves_it_open() -> None:
    (point,) = fork_points(encode(PLAN), TAGS)
    assert not point.complete and point.branches == () and point.end == point.goal_end
    (point,) = fork_points(encode(PLAN + "<Path>x"), TAGS)
    assert not point.complete and spans(point) == [2]
    (point,) = fork_points(encode(PLAN + "<Path>x</Path>"), TAGS)
    assert not point.complete and spans(point) == [3]


def test_blocks_in_a_row_come_in_order() -> None:
    points = fork_points(encode(PLAN + REST + TAIL + "q" + PLAN + "<Path>"), TAGS)
    assert [p.complete for p in points] == [True, False]
    assert points[0].end < points[1].goal_end


def test_a_nested_block_is_found_from_its_branch_only() -> None:
    inner = PLAN + REST + TAIL
    visible = encode(PLAN + "<Path>" + inner + "z</Path>")
    start = len(encode(PLAN))
    assert [p.goal_end for p in fork_points(visible, TAGS)] == [start]
    (point,) = fork_points(visible, TAGS, depth=1, start=start)
    assert point.goal_end == start + 1 + start and point.complete
    assert spans(point) == [3, 5]


@pytest.mark.parametrize("cut", range(len(encode(PLAN + REST + TAIL))))
def test_branches_lie_side_by_side_in_any_prefix(cut: int) -> None:
    for point in fork_points(encode(PLAN + REST + TAIL)[:cut], TAGS):
        edge = point.goal_end
        for branch in point.branches:
            assert branch.lo == edge < branch.hi <= cut
            edge = branch.hi
        assert edge == point.end
