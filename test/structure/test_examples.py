"""Short texts with every position and every hidden token written out by hand."""

from __future__ import annotations

from sglang_multiverse.structure import Automaton, layout, parse

from .strategies import VOCABULARIES, M, N, T, Vocabulary


def check(v: Vocabulary, lines: str, hidden: dict[str, str]) -> list[int]:
    """Each line holds words, `|`, and their positions.

    `hidden` names ranges of token indices ("9-11") and what each of their
    tokens may not see; all others see everything before them.
    """
    words: list[str] = []
    positions: list[int] = []
    for line in lines.strip().splitlines():
        left, right = line.split("|")
        words += left.split()
        positions += [int(position) for position in right.split()]
    ids = v.encode(" ".join(words))
    whole = layout(ids, v.tags)
    assert whole.positions.tolist() == positions
    expected = [[j <= i for j in range(len(ids))] for i in range(len(ids))]
    for holders, unseen in hidden.items():
        for i in _indices(holders):
            for j in _indices(unseen):
                expected[i][j] = False
    assert whole.dense_mask().tolist() == expected
    assert v.reading(ids).positions() == positions
    return ids


def _indices(ranges: str) -> list[int]:
    found: list[int] = []
    for part in ranges.split(","):
        lo, hi = part.split("-")
        found += range(int(lo), int(hi) + 1)
    return found


def test_multiverse_flat() -> None:
    ids = check(
        M,
        """
        <Think> a <Parallel> <Goal>              | 0 1 2 3
        <Outline> 1: </Outline>                  | 4 5 6
        <Outline> 2: </Outline> </Goal>          | 7 8 9 10
        _ <Path> _ 1: x y z </Path>              | 11 12 13 14 15 16 17 18
        _ <Path> _ 2: x </Path>                  | 11 12 13 14 15 16
        _ <Conclusion> c </Conclusion>           | 19 20 21 22
        _ </Parallel> b </Think>                 | 23 24 25 26
        """,
        {"19-24": "11-18"},
    )
    trace = parse(ids, M.tags)
    assert trace.well_formed
    (block,) = trace.blocks
    assert block.span == (2, 31)
    assert block.goal_end == 11
    assert block.outlines == [(5, 6), (8, 9)]
    assert [branch.span for branch in block.branches] == [(11, 19), (19, 25)]
    assert block.conclusion == (27, 28)
    assert trace.statistics() == (33, 27, 1, 2, 1)
    assert trace.statistics(start=2).tokens == 31
    assert trace.statistics(start=2).critical_path_tokens == 25


def test_multiverse_nested() -> None:
    ids = check(
        M,
        """
        <Parallel> <Goal> <Outline> </Outline>           | 0 1 2 3
        <Outline> </Outline> <Outline> </Outline> </Goal>| 4 5 6 7 8
        <Path> a </Path>                                 | 9 10 11
        _ <Path> b                                       | 9 10 11
        <Parallel> <Goal> <Outline> </Outline>           | 12 13 14 15
        <Outline> </Outline> </Goal>                     | 16 17 18
        <Path> </Path>                                   | 19 20
        <Path> c d </Path>                               | 19 20 21 22
        _ <Conclusion> </Conclusion> </Parallel>         | 23 24 25 26
        </Path>                                          | 27
        <Path> e f </Path>                               | 9 10 11 12
        <Conclusion> </Conclusion> </Parallel> g         | 28 29 30 31
        """,
        # the second branch, with the block in it, does not see the first; the
        # inner second does not see the inner first; the third sees neither
        {"12-32": "9-11", "24-27": "22-23", "33-36": "9-32"},
    )
    trace = parse(ids, M.tags)
    assert trace.well_formed
    assert trace.statistics() == (41, 32, 2, 5, 2)
    (outer,) = trace.blocks
    assert [len(branch.blocks) for branch in outer.branches] == [0, 1, 0]
    assert outer.branches[1].blocks[0].span == (15, 32)


def test_multiverse_two_blocks() -> None:
    check(
        M,
        """
        <Parallel> <Goal> <Outline> </Outline>           | 0 1 2 3
        <Outline> </Outline> </Goal>                     | 4 5 6
        <Path> </Path> <Path> x </Path>                  | 7 8 7 8 9
        <Conclusion> </Conclusion> </Parallel> y         | 10 11 12 13
        <Parallel> <Goal> <Outline> </Outline>           | 14 15 16 17
        <Outline> </Outline> </Goal>                     | 18 19 20
        <Path> x x </Path> <Path> </Path>                | 21 22 23 24 21 22
        <Conclusion> </Conclusion> </Parallel>           | 25 26 27
        """,
        {"9-11": "7-8", "27-28": "23-26"},
    )


def test_multiverse_concludes_early() -> None:
    """The third branch is due: the space and the tag are laid out as its first tokens."""
    ids = check(
        M,
        """
        <Parallel> <Goal> <Outline> </Outline>           | 0 1 2 3
        <Outline> </Outline> <Outline> </Outline> </Goal>| 4 5 6 7 8
        <Path> </Path> <Path> x </Path>                  | 9 10 9 10 11
        _ <Conclusion> c                                 | 9 10 12
        </Conclusion> </Parallel>                        | 13 14
        """,
        {"11-13": "9-10", "14-15": "9-13"},
    )
    assert parse(ids, M.tags).defects == ["token 0: 3 outlines, 2 branches"]


def test_multiverse_concludes_early_and_late() -> None:
    """What was written while a branch was due may be longer than every branch."""
    check(
        M,
        """
        <Parallel> <Goal> <Outline> </Outline>           | 0 1 2 3
        <Outline> </Outline> </Goal>                     | 4 5 6
        <Path> </Path> x x x </Parallel> y               | 7 8 7 8 9 10 11
        """,
        {"9-12": "7-8"},
    )


def test_multiverse_more_paths_than_outlines() -> None:
    ids = check(
        M,
        """
        <Parallel> <Goal> <Outline> </Outline> </Goal>   | 0 1 2 3 4
        <Path> x </Path> <Path> x </Path>                | 5 6 7 8 9 10
        <Conclusion> </Conclusion> </Parallel>           | 11 12 13
        """,
        {},
    )
    assert parse(ids, M.tags).stray == [8, 10]


def test_multiverse_block_without_branches() -> None:
    ids = check(
        M, "<Parallel> <Goal> <Outline> </Outline> </Goal> x </Parallel> y | 0 1 2 3 4 5 6 7", {}
    )
    trace = parse(ids, M.tags)
    assert trace.blocks == []
    assert trace.empty == [0]


def test_npr() -> None:
    ids = check(
        N,
        """
        a <guideline> <plan> </plan>                     | 0 1 2 3
        <plan> </plan> </guideline>                      | 4 5 6
        <step> x <guideline> <plan> </plan> </guideline> | 7 8 9 10 11 12
        <step> </step> <takeaway> </takeaway> </step>    | 13 14 15 16 17
        _ <step> </step>                                 | 7 8 9
        <takeaway> c </takeaway> b                       | 18 19 20 21
        """,
        {"18-20": "7-17"},
    )
    trace = parse(ids, N.tags)
    assert trace.well_formed
    assert trace.blocks[0].span == (1, 24)
    assert trace.blocks[0].conclusion == (22, 23)
    assert trace.statistics() == (25, 22, 2, 3, 2)


def test_threadweaver() -> None:
    ids = check(
        T,
        """
        <Parallel> <Outlines> <Outline> </Outline>       | 0 1 2 3
        <Outline> </Outline> </Outlines>                 | 4 5 6
        <Thread> x x </Thread>                           | 7 8 9 10
        _ <Thread> </Thread>                             | 7 8 9
        c </Parallel> y                                  | 11 12 13
        """,
        {"11-13": "7-10"},
    )
    trace = parse(ids, T.tags)
    assert trace.well_formed
    assert trace.blocks[0].conclusion == (14, 15)


def test_push_tells_tags_in_place() -> None:
    for v in VOCABULARIES:
        d = v.dialect
        automaton = Automaton(v.tags)
        assert automaton.push(0) is None
        assert automaton.push(v.ids[d.branch.open]) is None
        opens_block = d.block.open if d.block else d.goal.open
        assert automaton.push(v.ids[opens_block]) is d.roles[opens_block]
        assert automaton.depth == len(automaton.frames) == 1
        assert (automaton.length, automaton.position) == (3, 3)
