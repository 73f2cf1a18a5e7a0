"""Which rows of a decode batch share which prefix, and how the shared part is cut into programs.

Neither torch nor a GPU: this runs on the host when rows come, go, fork or join, not in every
step. A prefix that is shared does not grow, so what is decided here holds until then; only the
rows' own suffixes grow.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple


class GroupingError(ValueError):
    """Chains that contradict each other, or a batch that is larger than its capacity."""


class Link(NamedTuple):
    """Rows with the same `key` in their chains have the same KV in their rows `[0, stop)`."""

    key: Hashable
    stop: int


class Group(NamedTuple):
    """`rows` of the batch, two or more, read the KV of `[start, stop)` together."""

    rows: tuple[int, ...]
    start: int
    stop: int


class Piece(NamedTuple):
    """What one program per KV head does: the rows `members[begin:end]` over `[start, stop)`.

    `state` is where, among a row's prefix states, the result goes.
    """

    begin: int
    end: int
    start: int
    stop: int
    state: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """Sizes of the tables, fixed where a CUDA graph holds their addresses.

    Attributes:
        rows: of the batch.
        pieces: of all groups.
        members: rows of all groups, counted once for each group they are in.
        states: partial results of a row, one for each piece it is in.
        rows_per_piece: at most; times query heads per KV head, it is a program's tile.
    """

    rows: int
    pieces: int
    members: int
    states: int
    rows_per_piece: int

    def __post_init__(self) -> None:
        for name in ("rows", "pieces", "members", "states", "rows_per_piece"):
            if getattr(self, name) < (1 if name in ("rows", "rows_per_piece") else 0):
                raise GroupingError(f"{name}: {getattr(self, name)} is too small")


@dataclass(frozen=True, slots=True)
class Plan:
    """The tables' contents; rows that share nothing have `suffix_start` and `states` of 0."""

    pieces: tuple[Piece, ...]
    members: tuple[int, ...]
    suffix_start: tuple[int, ...]
    states: tuple[int, ...]


@dataclass(slots=True)
class _Node:
    stop: int
    rows: list[int] = field(default_factory=list)
    children: list[_Node] = field(default_factory=list)


def find_groups(chains: Sequence[Sequence[Link]], *, min_saved: int = 1) -> list[Group]:
    """Disjoint groups, outer ones first, that save `min_saved` reads of a token each, or more.

    Args:
        chains: for each row its prefixes that others may share, outermost first: nodes of the
            radix tree, parked parents. A key has one parent and one length.
        min_saved: a group of `n` rows over `m` tokens saves `(n - 1) · m` reads. What saves
            less is left to the groups within, or to the rows.
    """
    groups: list[Group] = []
    todo = [(root, 0) for root in reversed(_forest(chains))]
    while todo:
        node, start = todo.pop()
        # Same rows, one group: the inner node continues the outer one.
        same = [child for child in node.children if len(child.rows) == len(node.rows)]
        if not same:
            shared = (len(node.rows) - 1) * (node.stop - start)
            if shared >= max(min_saved, 1):
                groups.append(Group(tuple(node.rows), start, node.stop))
                start = node.stop
        todo += [(child, start) for child in reversed(same or node.children)]
    return groups


def _forest(chains: Sequence[Sequence[Link]]) -> list[_Node]:
    roots: list[_Node] = []
    known: dict[Hashable, tuple[_Node, _Node | None]] = {}
    for row, chain in enumerate(chains):
        parent: _Node | None = None
        for key, stop in chain:
            if key not in known:
                known[key] = (_Node(stop), parent)
                (roots if parent is None else parent.children).append(known[key][0])
            node, its_parent = known[key]
            if its_parent is not parent or node.stop != stop:
                raise GroupingError(f"chains: row {row} has {key!r} elsewhere than a row before it")
            if stop < (0 if parent is None else parent.stop):
                raise GroupingError(f"chains: in row {row}, {key!r} ends before its parent")
            node.rows.append(row)
            parent = node
    return roots


def plan_pieces(
    chains: Sequence[Sequence[Link]],
    capacity: Capacity,
    *,
    wanted_pieces: int = 64,
    least: int = 128,
    min_saved: int = 128,
) -> Plan:
    """Cut what rows share into pieces; what the capacity has no room for, rows read themselves.

    Args:
        chains: as `find_groups` takes them, one for each row.
        wanted_pieces: how many keep the card busy: programs at a time over KV heads.
        least: tokens of a piece, but for a group's last one. Pieces are multiples of it.
        min_saved: as `find_groups` takes it. It doubles until the tables have room.

    Raises:
        GroupingError: more rows than `capacity.rows`, chains that contradict each other, or
            another number that is too small.
    """
    for name, value in (("wanted_pieces", wanted_pieces), ("least", least)):
        if value < 1:
            raise GroupingError(f"{name}: {value}; allowed are numbers from 1")
    if len(chains) > capacity.rows:
        raise GroupingError(f"rows: {len(chains)}; allowed are {capacity.rows}")
    if capacity.rows_per_piece == 1:
        chains = [()] * len(chains)  # a program of one row saves nothing
    min_saved = max(min_saved, 1)
    while True:
        groups = find_groups(chains, min_saved=min_saved)
        plan = _cut(groups, len(chains), capacity, wanted_pieces, least)
        if plan is not None:
            return plan
        min_saved *= 2


def _cut(
    groups: list[Group], rows: int, capacity: Capacity, wanted: int, least: int
) -> Plan | None:
    """The cut into about `wanted` pieces, or into fewer, for which the tables have room."""
    tiles = [
        (group, part) for group in groups for part in _parts(group.rows, capacity.rows_per_piece)
    ]
    if sum(len(part) for _, part in tiles) > capacity.members:
        return None
    tokens = sum(group.stop - group.start for group, _ in tiles)
    longest = max((group.stop - group.start for group in groups), default=0)
    chunk = least * max(1, -(-tokens // (least * wanted)))
    while True:
        plan = _lay_out(tiles, rows, chunk)
        if len(plan.pieces) <= capacity.pieces and max(plan.states, default=0) <= capacity.states:
            return plan
        if chunk >= longest:
            return None
        chunk *= 2


def _parts(rows: tuple[int, ...], most: int) -> list[tuple[int, ...]]:
    """`rows` in as few parts of at most `most` as possible, of nearly one size."""
    count = -(-len(rows) // most)
    cuts = [len(rows) * i // count for i in range(count + 1)]
    return [rows[a:b] for a, b in pairwise(cuts)]


def _lay_out(tiles: list[tuple[Group, tuple[int, ...]]], rows: int, chunk: int) -> Plan:
    pieces: list[Piece] = []
    members: list[int] = []
    suffix_start = [0] * rows
    states = [0] * rows
    for group, part in tiles:
        begin = len(members)
        members += part
        # All rows of a group are in the same groups around it: they have as many states.
        state = states[part[0]]
        for start in range(group.start, group.stop, chunk):
            stop = min(start + chunk, group.stop)
            pieces.append(Piece(begin, len(members), start, stop, state))
            state += 1
        for row in part:
            states[row] = state
            suffix_start[row] = group.stop
    return Plan(tuple(pieces), tuple(members), tuple(suffix_start), tuple(states))
