"""Which rows share what, and how it is cut: every row reads all of itself, once."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import Batch, forest

from sglang_multiverse.kernels.grouping import (
    Capacity,
    Group,
    GroupingError,
    Link,
    Piece,
    Plan,
    find_groups,
    plan_pieces,
)
from sglang_multiverse.kernels.prefix_tables import PrefixTables

A, B = Link("a", 100), Link("a.1", 150)


def test_a_family() -> None:
    chains = [[A, B], [A], [A, B], []]
    assert find_groups(chains) == [Group((0, 1, 2), 0, 100), Group((0, 2), 100, 150)]


def test_what_one_row_has_is_no_group() -> None:
    assert find_groups([[A, B], [A, Link("a.2", 130)]]) == [Group((0, 1), 0, 100)]
    assert find_groups([[A], [Link("b", 100)], []]) == []


def test_the_same_rows_are_one_group() -> None:
    assert find_groups([[A, B], [A, B]]) == [Group((0, 1), 0, 150)]


def test_what_saves_little_is_left_to_the_groups_within() -> None:
    chains = [[Link("a", 10), Link(i, 300)] for i in (1, 1, 2, 2)]
    want = [Group((0, 1), 0, 300), Group((2, 3), 0, 300)]
    assert find_groups(chains, min_saved=31) == want
    assert find_groups(chains, min_saved=30)[0] == Group((0, 1, 2, 3), 0, 10)
    assert find_groups(chains, min_saved=301) == []


def test_an_empty_shared_part_is_no_group() -> None:
    assert find_groups([[Link("a", 0)], [Link("a", 0)]]) == []


def test_a_long_prefix_is_cut_for_as_many_programs_as_are_wanted() -> None:
    plan = plan_pieces(
        [[Link("a", 1000)]] * 2, Capacity(2, 64, 64, 64, 8), wanted_pieces=4, least=128
    )
    assert plan == Plan(
        (
            Piece(0, 2, 0, 256, 0),
            Piece(0, 2, 256, 512, 1),
            Piece(0, 2, 512, 768, 2),
            Piece(0, 2, 768, 1000, 3),
        ),
        (0, 1),
        (1000, 1000),
        (4, 4),
    )


def test_many_rows_are_cut_into_parts_of_one_size() -> None:
    plan = plan_pieces([[Link("a", 128)]] * 10, Capacity(10, 64, 64, 64, 4))
    assert [piece.end - piece.begin for piece in plan.pieces] == [3, 3, 4]
    assert plan.members == tuple(range(10))


@pytest.mark.parametrize(
    ("short", "groups"),
    [
        ({"pieces": 1}, [Group((0, 1, 2), 0, 900)]),
        ({"states": 1}, [Group((0, 1, 2), 0, 900)]),
        ({"members": 4}, [Group((0, 1, 2), 0, 900)]),
        ({"members": 2}, []),
        ({"pieces": 0}, []),
    ],
)
def test_where_room_is_short_what_saves_most_is_kept(
    short: dict[str, int], groups: list[Group]
) -> None:
    a = Link("a", 900)
    chains = [[a, Link("b", 1400)], [a, Link("b", 1400)], [a]]
    sizes: dict[str, Any] = {"rows": 3, "pieces": 9, "members": 9, "states": 9, "rows_per_piece": 8}
    plan = plan_pieces(chains, Capacity(**{**sizes, **short}), wanted_pieces=1)
    assert [piece[2:4] for piece in plan.pieces] == [group[1:] for group in groups]


def test_programs_of_one_row_share_nothing() -> None:
    plan = plan_pieces([[Link("a", 1000)]] * 2, Capacity(2, 9, 9, 9, rows_per_piece=1))
    assert plan == Plan((), (), (0, 0), (0, 0))


@pytest.mark.parametrize("short", [{"pieces": 2}, {"states": 2}])
def test_pieces_grow_before_a_group_is_given_up(short: dict[str, int]) -> None:
    sizes = {"rows": 2, "pieces": 64, "members": 64, "states": 64, "rows_per_piece": 8}
    plan = plan_pieces([[Link("a", 1000)]] * 2, Capacity(**{**sizes, **short}))
    assert [piece[2:4] for piece in plan.pieces] == [(0, 512), (512, 1000)]


def covered(plan: Plan, rows: int) -> list[list[tuple[int, int, int]]]:
    """For each row, the parts of it that programs read: (start, stop, where the state goes)."""
    parts: list[list[tuple[int, int, int]]] = [[] for _ in range(rows)]
    for piece in plan.pieces:
        for row in plan.members[piece.begin : piece.end]:
            parts[row].append((piece.start, piece.stop, piece.state))
    return parts


@given(
    seed=st.integers(0, 2**20),
    rows=st.integers(0, 20),
    depth=st.integers(0, 4),
    pieces=st.integers(0, 20),
    members=st.integers(0, 30),
    states=st.integers(0, 8),
    rows_per_piece=st.integers(1, 6),
    wanted=st.integers(1, 30),
    least=st.sampled_from([1, 16, 128]),
    min_saved=st.integers(0, 200),
)
@settings(max_examples=300, deadline=None, database=None, derandomize=True)
def test_every_row_is_read_whole_and_once(
    seed: int,
    rows: int,
    depth: int,
    pieces: int,
    members: int,
    states: int,
    rows_per_piece: int,
    wanted: int,
    least: int,
    min_saved: int,
) -> None:
    batch: Batch = forest(random.Random(seed), rows, depth, prefix=400, own=5)
    capacity = Capacity(rows + 1, pieces, members, states, rows_per_piece)
    plan = plan_pieces(
        batch.chains, capacity, wanted_pieces=wanted, least=least, min_saved=min_saved
    )
    assert len(plan.pieces) <= pieces and len(plan.members) <= members
    assert max(plan.states, default=0) <= states
    assert all(0 < piece.end - piece.begin <= rows_per_piece for piece in plan.pieces)
    for row, parts in enumerate(covered(plan, rows)):
        parts.sort()
        ends = [0, *(stop for _, stop, _ in parts)]
        assert [start for start, _, _ in parts] == ends[:-1]  # one after the other, from 0
        assert plan.suffix_start[row] == ends[-1]
        assert sorted(state for _, _, state in parts) == list(range(plan.states[row]))
    # Rows of a piece have the same tokens in it: their chains agree that far.
    for piece in plan.pieces:
        at = [
            link_at(batch.chains[row], piece.stop) for row in plan.members[piece.begin : piece.end]
        ]
        assert len(set(at)) == 1


def link_at(chain: list[Link], stop: int) -> Link:
    """The link of `chain` that holds the token before `stop`."""
    return next(link for link in chain if link.stop >= stop)


@pytest.mark.parametrize(
    ("chains", "names"),
    [
        ([[A], [Link("a", 99)]], "'a' elsewhere"),
        ([[A, B], [B]], "'a.1' elsewhere"),
        ([[B, Link("c", 120)]], "'c' ends before its parent"),
        ([[A, A]], "'a' elsewhere"),
    ],
)
def test_chains_that_contradict_each_other(chains: list[list[Link]], names: str) -> None:
    with pytest.raises(GroupingError, match=rf"^chains: .*{names}"):
        find_groups(chains)


def test_a_plan_for_larger_tables() -> None:
    plan = plan_pieces([[Link("a", 500)]] * 2, Capacity(2, 9, 9, 9, 8))
    with pytest.raises(GroupingError, match=r"^plan: 20 numbers; allowed are 15"):
        PrefixTables.allocate(Capacity(2, 3, 9, 9, 8), "cpu").fill(plan)


def test_numbers_that_are_too_small() -> None:
    capacity = Capacity(1, 1, 1, 1, 1)
    with pytest.raises(GroupingError, match=r"^rows: 2; allowed are 1"):
        plan_pieces([[], []], capacity)
    with pytest.raises(GroupingError, match=r"^wanted_pieces: 0"):
        plan_pieces([[]], capacity, wanted_pieces=0)
    with pytest.raises(GroupingError, match=r"^least: 0"):
        plan_pieces([[]], capacity, least=0)
    with pytest.raises(GroupingError, match=r"^states: -1"):
        Capacity(1, 1, 1, -1, 1)
    with pytest.raises(GroupingError, match=r"^rows_per_piece: 0"):
        Capacity(1, 1, 1, 1, 0)
