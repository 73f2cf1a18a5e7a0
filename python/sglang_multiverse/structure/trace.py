"""The parse tree of a whole text, and what it says about the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .automaton import Automaton, Interval, Phase
from .dialect import Role
from .tags import TagTable


@dataclass(slots=True)
class Branch:
    """Tokens `[span.lo, span.hi)` from the first token after `</Goal>` (or the
    previous `</Path>`) up to and including `</Path>`; a branch cut short runs
    to the end of the text."""

    span: Interval
    closed: bool
    blocks: list[Block] = field(default_factory=list)


@dataclass(slots=True)
class Block:
    """A parallel block with at least one branch.

    `outlines` are the texts between the outline tags; `conclusion` the text
    between the conclusion tags, or, in a dialect without them, from the last
    announced branch to the tag that closes the block; `None` if there is none.
    """

    span: Interval
    goal_end: int
    outlines: list[Interval]
    branches: list[Branch] = field(default_factory=list)
    conclusion: Interval | None = None
    closed: bool = False


class Statistics(NamedTuple):
    """Tokens are counted from the index given to `statistics`.

    Attributes:
        tokens: all of them.
        critical_path_tokens: the longest path, by position ids: from the token
            given to the furthest one after it. (A text counted from within a
            branch is measured against that branch.)
        blocks, branches: those whose goal closes among the tokens counted.
        depth: how many blocks hold the token that most of them hold.
    """

    tokens: int
    critical_path_tokens: int
    blocks: int
    branches: int
    depth: int

    @property
    def degree_of_parallelism(self) -> float:
        """All tokens ÷ critical path (the paper's measure); 1 for sequential text."""
        return self.tokens / self.critical_path_tokens if self.critical_path_tokens else 1.0


@dataclass(slots=True)
class Trace:
    """A parsed text.

    Attributes:
        blocks: the top-level blocks, in order.
        stray: indices of tags read as ordinary tokens.
        empty: indices at which a block opened that closed without a branch.
        open_blocks: blocks still open at the end, branchless ones included.
    """

    length: int
    blocks: list[Block]
    stray: list[int]
    empty: list[int]
    open_blocks: int
    positions: list[int]

    @property
    def defects(self) -> list[str]:
        """Why the text is not well formed; empty when it is."""
        found = [f"token {i}: a tag out of place" for i in self.stray]
        found.extend(f"token {i}: a block without branches" for i in self.empty)
        if self.open_blocks:
            found.append(f"{self.open_blocks} block(s) never closed")
        for block in walk(self.blocks):
            if len(block.branches) != len(block.outlines):
                found.append(
                    f"token {block.span.lo}: {len(block.outlines)} outlines, "
                    f"{len(block.branches)} branches"
                )
            if block.closed and block.conclusion is None:
                found.append(f"token {block.span.lo}: no conclusion")
        return found

    @property
    def well_formed(self) -> bool:
        return not self.defects

    def statistics(self, start: int = 0) -> Statistics:
        """Count from token `start`, which is the prompt's length for a whole conversation."""
        first = self.positions[start] if start < self.length else 0
        inside = [block for block in walk(self.blocks) if block.goal_end > start]
        return Statistics(
            tokens=self.length - start,
            critical_path_tokens=max(self.positions[start:], default=first - 1) - first + 1,
            blocks=len(inside),
            branches=sum(len(block.branches) for block in inside),
            depth=max((d for block, d in _walk(self.blocks) if block.span.hi > start), default=0),
        )


def walk(blocks: Sequence[Block]) -> list[Block]:
    """All blocks in text order, nested ones after the block that holds them."""
    return [block for block, _ in _walk(blocks)]


def _walk(blocks: Sequence[Block]) -> list[tuple[Block, int]]:
    """All blocks, each with its depth; no recursion, since a prompt may nest without bound."""
    found: list[tuple[Block, int]] = []
    waiting = [(block, 1) for block in reversed(blocks)]
    while waiting:
        block, depth = waiting.pop()
        found.append((block, depth))
        inner = [nested for branch in block.branches for nested in branch.blocks]
        waiting.extend((nested, depth + 1) for nested in reversed(inner))
    return found


def _end(block: Block, i: int, implicit_conclusion: bool) -> None:
    """The tag at `i` ends `block`."""
    block.span, block.closed = Interval(block.span.lo, i + 1), True
    if implicit_conclusion:
        block.conclusion = Interval(block.branches[-1].span.hi, i)


def parse(ids: Sequence[int], tags: TagTable) -> Trace:
    """Read a whole sequence into a tree. Total: every sequence has one."""
    automaton = Automaton(tags)
    roots: list[Block] = []
    # `open_` mirrors automaton.frames; an entry stays None until the goal closes.
    open_: list[Block | None] = []
    stray: list[int] = []
    empty: list[int] = []
    positions: list[int] = []
    conclusion_start = 0

    for i, token in enumerate(ids):
        positions.append(automaton.position)
        frame = automaton.frames[-1] if automaton.frames else None
        tail = automaton.phase is Phase.TAIL
        role = automaton.push(token)
        if role is None:
            if token in tags.role_of:
                stray.append(i)
            continue
        open_.extend([None] * (len(automaton.frames) - len(open_)))
        block = open_[-1] if open_ else None
        if role is Role.GOAL_CLOSE and frame is not None:
            open_[-1] = Block(Interval(frame.start, len(ids)), i + 1, list(frame.outlines))
        elif role is Role.BRANCH_OPEN and block is not None and frame is not None:
            if not block.branches:
                holder = open_[-2] if len(open_) > 1 else None
                (holder.branches[-1].blocks if holder is not None else roots).append(block)
            block.branches.append(Branch(Interval(frame.branch_start, len(ids)), closed=False))
        elif role is Role.BRANCH_CLOSE and block is not None:
            branch = block.branches[-1]
            branch.span, branch.closed = Interval(branch.span.lo, i + 1), True
        elif role is Role.CONCLUSION_OPEN:
            conclusion_start = i + 1
        elif role is Role.CONCLUSION_CLOSE and block is not None:
            block.conclusion = Interval(conclusion_start, i)
        if len(automaton.frames) < len(open_):
            ended = open_.pop()
            if ended is None or not ended.branches:
                empty.append(frame.start if frame is not None else i)
            else:
                _end(ended, i, implicit_conclusion=tail and tags.dialect.conclusion is None)
    return Trace(len(ids), roots, stray, empty, len(automaton.frames), positions)
