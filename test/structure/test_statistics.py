"""What a trace says about a text, against counting by hand and by the definition."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sglang_multiverse.structure import Statistics, parse

from .strategies import M, T, Vocabulary, any_text, quick


@quick(250)
@given(any_text, st.data())
def test_statistics_are_counts(case: tuple[Vocabulary, list[int]], data: st.DataObject) -> None:
    v, ids = case
    reading = v.reading(ids)
    start = data.draw(st.one_of(st.just(0), st.integers(0, len(ids))))
    assume(start == len(ids) or not reading.in_slot(start))
    blocks = [b for b in reading.parallel_blocks() if b.goal_end is not None and b.goal_end > start]
    statistics = parse(ids, v.tags).statistics(start)
    assert statistics == Statistics(
        tokens=len(ids[start:]),
        critical_path_tokens=reading.longest_path(start),
        blocks=len(blocks),
        branches=sum(len(block.branches) for block in blocks),
        depth=reading.depth(start),
    )
    if start < len(ids):
        ratio = statistics.tokens / statistics.critical_path_tokens
        assert statistics.degree_of_parallelism == pytest.approx(ratio)
        assert ratio >= 1


def test_counted_from_within_a_branch() -> None:
    """Tokens and blocks as ever; the path is measured against the branch at hand."""
    ids = M.encode("<Parallel> <Goal> <Outline> </Outline> </Goal> <Path> x x x </Path>")
    assert parse(ids, M.tags).statistics(7) == (3, 3, 0, 0, 1)


TWO = "<Parallel> <Goal> <Outline> </Outline> <Outline> </Outline> </Goal>"


@pytest.mark.parametrize(
    ("text", "defects"),
    [
        (TWO + " <Path> </Path> <Path> </Path> <Conclusion> </Conclusion> </Parallel>", []),
        ("x </Goal>", ["token 1: a tag out of place"]),
        ("x <Parallel> x </Parallel>", ["token 1: a block without branches"]),
        ("<Parallel> x", ["1 block(s) never closed"]),
        (
            TWO + " <Path> </Path> <Conclusion> </Conclusion> </Parallel>",
            ["token 0: 2 outlines, 1 branches"],
        ),
        (TWO + " <Path> </Path> <Path> </Path> </Parallel>", ["token 0: no conclusion"]),
    ],
)
def test_defects(text: str, defects: list[str]) -> None:
    trace = parse(M.encode(text), M.tags)
    assert trace.defects == defects
    assert trace.well_formed == (not defects)


def test_a_dialect_without_conclusion_tags_concludes_in_plain_text() -> None:
    plan = "<Parallel> <Outlines> <Outline> </Outline> <Outline> </Outline> </Outlines>"
    whole = parse(T.encode(plan + " <Thread> </Thread> <Thread> </Thread> x x </Parallel>"), T.tags)
    assert whole.well_formed
    assert whole.blocks[0].conclusion == (11, 13)
    early = parse(T.encode(plan + " <Thread> </Thread> x x </Parallel>"), T.tags)
    assert early.blocks[0].conclusion is None
    assert early.defects == ["token 0: 2 outlines, 1 branches", "token 0: no conclusion"]
