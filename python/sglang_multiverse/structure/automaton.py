"""Reading Multiverse text: a total, incremental automaton over token ids.

Every sequence of ids has exactly one reading. A tag out of place is an
ordinary token; a block in which no branch was opened is ordinary text. The
layout of a token (position, hidden intervals) depends on the ids *before* it
only, so it is known before the token itself is: this is what makes a token's
KV a pure function of the ids up to it.

That rule needs one decision the tags alone do not give. The white space after
`</Path>` belongs to the next branch, or, after the last branch, to the
conclusion; which of the two is settled by the goal: it announced `n` outlines,
so `n` branches follow. A block that concludes early is read to its end too
(`_close_branches` below); extra `<Path>` tags are ordinary tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, unique
from typing import NamedTuple

from .dialect import Role
from .tags import TagTable


class Interval(NamedTuple):
    """Token indices `[lo, hi)`."""

    lo: int
    hi: int


@unique
class Phase(Enum):
    """Where the innermost open block stands."""

    BLOCK = "block"  # after <Parallel>, before <Goal>
    GOAL = "goal"  # in the goal, between outlines
    OUTLINE = "outline"  # in an outline
    HEAD = "head"  # a branch is due and not opened yet
    BRANCH = "branch"  # in an open branch
    TAIL = "tail"  # all announced branches are closed
    CONCLUSION = "conclusion"  # in the conclusion
    END = "end"  # after the conclusion, before </Parallel>


class Frame:
    """One open block. Indices are absolute, positions are position ids."""

    __slots__ = (
        "branch_start",
        "closed",
        "goal_end",
        "goal_position",
        "max_position",
        "outline_start",
        "outlines",
        "phase",
        "start",
    )

    def __init__(self, start: int, phase: Phase) -> None:
        self.phase = phase
        self.start = start  # index of the tag that opened the block
        self.outline_start = -1  # index after the open <Outline>
        self.outlines: list[Interval] = []  # the text of each closed outline
        self.goal_end = -1  # index after </Goal>
        self.goal_position = -1  # position of </Goal>
        self.branch_start = -1  # index of the first token of the branch at hand
        self.closed = 0  # branches closed so far
        self.max_position = -1  # max over closed branches of pos(</Path>)

    def copy(self) -> Frame:
        twin = Frame.__new__(Frame)
        for name in Frame.__slots__:
            setattr(twin, name, getattr(self, name))
        twin.outlines = list(self.outlines)
        return twin

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in Frame.__slots__)


class Automaton:
    """The reading of a token sequence, advanced one id at a time, O(1) per id.

    `length`, `position` and `hidden` describe the token to come: its index, its
    position id, and what it may not see.
    """

    __slots__ = ("frames", "length", "position", "tags", "tags_read", "think_open")

    def __init__(self, tags: TagTable) -> None:
        self.tags = tags
        self.frames: list[Frame] = []
        self.length = 0
        self.position = 0
        self.think_open = False
        self.tags_read = 0  # as tags; what may follow changes with it only

    def copy(self) -> Automaton:
        """An independent twin; a branch of a fork starts as a copy of its parent."""
        twin = Automaton(self.tags)
        twin.frames = [frame.copy() for frame in self.frames]
        twin.length, twin.position = self.length, self.position
        twin.think_open = self.think_open
        twin.tags_read = self.tags_read
        return twin

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Automaton):
            return NotImplemented
        return (
            self.length == other.length
            and self.position == other.position
            and self.think_open == other.think_open
            and self.frames == other.frames
        )

    @property
    def phase(self) -> Phase | None:
        """The phase of the innermost open block, or `None` outside blocks."""
        return self.frames[-1].phase if self.frames else None

    @property
    def depth(self) -> int:
        """How many blocks are open."""
        return len(self.frames)

    @property
    def hidden(self) -> tuple[Interval, ...]:
        """The intervals hidden from the next token, at most one per open block, ascending."""
        return tuple(
            Interval(frame.goal_end, frame.branch_start)
            for frame in self.frames
            if frame.phase in (Phase.HEAD, Phase.BRANCH) and frame.goal_end < frame.branch_start
        )

    def feed(self, ids: Iterable[int]) -> None:
        for token in ids:
            self.push(token)

    def skip(self, count: int) -> None:
        """Read `count` ids that are known to hold no tag."""
        self.length += count
        self.position += count

    def push(self, token: int) -> Role | None:
        """Read one id.

        Returns:
            The role in which a tag was read, or `None` for an ordinary token,
            which a tag out of place is too.
        """
        position = self.position
        self.position += 1
        role = self.tags.role_of.get(token)
        if role is not None:
            if self._read(role, position):
                self.tags_read += 1
            else:
                role = None
        self.length += 1
        return role

    def _read(self, role: Role, position: int) -> bool:  # noqa: C901 - a transition table
        """Apply a tag at index `length` and `position`; `False` when it is out of place."""
        frame = self.frames[-1] if self.frames else None
        phase = frame.phase if frame is not None else None
        dialect = self.tags.dialect

        if role is Role.THINK_OPEN or role is Role.THINK_CLOSE:
            opens = role is Role.THINK_OPEN
            if frame is not None or opens == self.think_open:
                return False
            self.think_open = opens
            return True

        opens_block = Role.GOAL_OPEN if dialect.block is None else Role.BLOCK_OPEN
        if role is opens_block:
            if phase is not None and phase is not Phase.BRANCH:
                return False
            self.frames.append(
                Frame(self.length, Phase.GOAL if role is Role.GOAL_OPEN else Phase.BLOCK)
            )
            return True
        if frame is None:
            return False

        match role, phase:
            case Role.GOAL_OPEN, Phase.BLOCK:
                frame.phase = Phase.GOAL
            case Role.OUTLINE_OPEN, Phase.GOAL:
                frame.phase = Phase.OUTLINE
                frame.outline_start = self.length + 1
            case Role.OUTLINE_CLOSE, Phase.OUTLINE:
                frame.phase = Phase.GOAL
                frame.outlines.append(Interval(frame.outline_start, self.length))
            case Role.GOAL_CLOSE, Phase.GOAL if frame.outlines:
                frame.phase = Phase.HEAD
                frame.goal_end = frame.branch_start = self.length + 1
                frame.goal_position = position
            case Role.BRANCH_OPEN, Phase.HEAD:
                frame.phase = Phase.BRANCH
            case Role.BRANCH_CLOSE, Phase.BRANCH:
                frame.closed += 1
                frame.max_position = max(frame.max_position, position)
                if frame.closed < len(frame.outlines):
                    frame.phase = Phase.HEAD
                    frame.branch_start = self.length + 1
                    self.position = frame.goal_position + 1
                else:
                    self._close_branches(frame, position)
                    frame.phase = Phase.TAIL
            case Role.CONCLUSION_OPEN, Phase.TAIL:
                frame.phase = Phase.CONCLUSION
            case Role.CONCLUSION_OPEN, Phase.HEAD if frame.closed:
                self._close_branches(frame, position)
                frame.phase = Phase.CONCLUSION
            case Role.CONCLUSION_CLOSE, Phase.CONCLUSION:
                if dialect.block is None:
                    self.frames.pop()
                else:
                    frame.phase = Phase.END
            case Role.BLOCK_CLOSE, Phase.BLOCK | Phase.TAIL | Phase.END:
                self.frames.pop()
            case Role.BLOCK_CLOSE, Phase.HEAD:
                self._close_branches(frame, position)
                self.frames.pop()
            case _:
                return False
        return True

    def _close_branches(self, frame: Frame, position: int) -> None:
        """From the next token on every branch is visible again.

        `position` is that of the token at hand, which for a block that ends
        early was still laid out as part of the branch that was due.
        """
        self.position = 1 + max(frame.max_position, position)
