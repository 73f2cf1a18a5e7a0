"""The rules of the language, restated slowly: what the tests hold the code to.

Nothing here is incremental and nothing is shared with the automaton. A text is
a list of words; a word is a tag of the dialect or anything else. Reading it is
a recursive descent in which "a tag out of place is an ordinary token" becomes
"look for the next word that may stand here, step over all others".

What DESIGN leaves to the reader, and how it is decided:

* After a branch's closing tag the next token belongs to the next branch if
  fewer branches were closed than the goal has outlines, otherwise to the
  conclusion. The layout of a token therefore depends on earlier tokens only.
* Consequently a *slot* is laid out for every branch that is due, opened or not.
  A block that concludes or closes early ends the slot at hand with that tag:
  tokens keep the layout they had, the tag itself lies in the slot, and the
  token after it comes behind all slots (1 + the maximum of their last positions).
* A conclusion may begin only after at least one branch was closed. The closing
  block tag ends a block before its goal, when a branch is due, after the last
  branch and after the conclusion, and nowhere else.
* Branch tags beyond the number of outlines are ordinary.
* Blocks open in plain text and in open branches, nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from sglang_multiverse.structure.dialect import Dialect

Range = tuple[int, int]


@dataclass
class Slot:
    """The place of one branch: tokens `[start, end)`, from the first that is due to it."""

    start: int
    end: int
    opened: bool = False
    closed: bool = False
    blocks: list[ParallelBlock] = field(default_factory=list)


@dataclass
class ParallelBlock:
    start: int
    end: int | None = None  # None: never closed
    goal_end: int | None = None
    outlines: list[Range] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    conclusion: Range | None = None

    @property
    def branches(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.opened]


class Reading:
    """The one reading of a text."""

    def __init__(self, words: Sequence[str], dialect: Dialect) -> None:
        self.words = list(words)
        self.dialect = dialect
        self.n = len(self.words)
        self.in_place: set[int] = set()
        self.blocks: list[ParallelBlock] = []
        self._read_text(0, holder=None)

    # --- reading -------------------------------------------------------------

    def _find(self, at: int, *wanted: str | None) -> int:
        """The first index from `at` on that holds a wanted word; `n` if there is none."""
        for i in range(at, self.n):
            if self.words[i] in wanted:
                self.in_place.add(i)
                return i
        return self.n

    def _read_text(self, at: int, holder: Slot | None) -> int:
        """Read plain text: to the end, or within a branch to its closing tag."""
        d = self.dialect
        opens_block = d.block.open if d.block else d.goal.open
        blocks = self.blocks if holder is None else holder.blocks
        thinking = False
        while True:
            if holder is not None:
                also = d.branch.close
            elif d.think is not None:
                also = d.think.close if thinking else d.think.open
            else:
                also = None
            at = self._find(at, opens_block, also)
            if at == self.n:
                return self.n
            if self.words[at] == opens_block:
                at = self._read_block(at, blocks)
            elif holder is None:
                thinking = not thinking
                at += 1
            else:
                holder.closed = True
                return at + 1

    def _read_block(self, at: int, blocks: list[ParallelBlock]) -> int:
        """Read the block opened at `at`; return the index after it, `n` if it never ends."""
        d = self.dialect
        block = ParallelBlock(at)
        blocks.append(block)
        block_close = d.block.close if d.block else None
        conclusion_open = d.conclusion.open if d.conclusion else None

        at += 1
        if d.block is not None:
            at = self._find(at, d.goal.open, block_close)
            if at == self.n:
                return self.n
            at += 1
            if self.words[at - 1] == block_close:
                block.end = at
                return at

        while True:
            at = self._find(at, d.outline.open, d.goal.close if block.outlines else None)
            if at == self.n:
                return self.n
            at += 1
            if self.words[at - 1] == d.goal.close:
                break
            outline_end = self._find(at, d.outline.close)
            if outline_end == self.n:
                return self.n
            block.outlines.append((at, outline_end))
            at = outline_end + 1
        block.goal_end = at

        for number in range(len(block.outlines)):
            slot = Slot(start=at, end=self.n)
            block.slots.append(slot)
            at = self._find(at, d.branch.open, block_close, conclusion_open if number else None)
            if at == self.n:
                return self.n
            if self.words[at] != d.branch.open:
                slot.end = at + 1
                return self._read_ending(at, block)
            slot.opened = True
            at = self._read_text(at + 1, slot)
            if not slot.closed:
                return self.n
            slot.end = at

        at = self._find(at, conclusion_open, block_close)
        return self._read_ending(at, block)

    def _read_ending(self, at: int, block: ParallelBlock) -> int:
        """Read what follows the branches; `at` is the tag that begins it."""
        d = self.dialect
        if at == self.n:
            return self.n
        if d.conclusion is not None and self.words[at] == d.conclusion.open:
            conclusion_end = self._find(at + 1, d.conclusion.close)
            if conclusion_end == self.n:
                return self.n
            block.conclusion = (at + 1, conclusion_end)
            at = conclusion_end
            if d.block is not None:
                at = self._find(at + 1, d.block.close)
                if at == self.n:
                    return self.n
        elif d.conclusion is None and block.slots[-1].closed:
            block.conclusion = (block.slots[-1].end, at)
        block.end = at + 1
        return at + 1

    # --- what was read -------------------------------------------------------

    def all_blocks(self) -> list[ParallelBlock]:
        """Every block that was begun, with or without branches, outer before inner."""
        found: list[ParallelBlock] = []

        def visit(blocks: list[ParallelBlock]) -> None:
            for block in blocks:
                found.append(block)
                for slot in block.slots:
                    visit(slot.blocks)

        visit(self.blocks)
        return found

    def parallel_blocks(self) -> list[ParallelBlock]:
        """Those in which a branch was opened; the others are ordinary text."""
        return [block for block in self.all_blocks() if block.branches]

    def stray(self) -> list[int]:
        tags = self.dialect.tags
        return [i for i in range(self.n) if self.words[i] in tags and i not in self.in_place]

    def positions(self) -> list[int]:
        first_of_branch: dict[int, ParallelBlock] = {}
        first_after: dict[int, ParallelBlock] = {}
        for block in self.all_blocks():
            for slot in block.slots:
                first_of_branch[slot.start] = block
            if block.slots:
                first_after[block.slots[-1].end] = block
        positions: list[int] = []
        for i in range(self.n):
            if i in first_of_branch:
                goal_end = first_of_branch[i].goal_end
                assert goal_end is not None
                position = positions[goal_end - 1] + 1
            elif i in first_after:
                position = 1 + max(positions[slot.end - 1] for slot in first_after[i].slots)
            elif i > 0:
                position = positions[i - 1] + 1
            else:
                position = 0
            positions.append(position)
        return positions

    def hidden(self) -> list[list[Range]]:
        """Per token, for every branch that holds it: from the end of the goal to its start."""
        hidden: list[list[Range]] = [[] for _ in self.words]
        for block in self.all_blocks():
            for slot in block.slots:
                assert block.goal_end is not None
                if slot.start > block.goal_end:
                    for i in range(slot.start, slot.end):
                        hidden[i].append((block.goal_end, slot.start))
        return hidden

    def mask(self) -> list[list[bool]]:
        """`mask[i][j]`: token `i` sees token `j`."""
        mask = [[j <= i for j in range(self.n)] for i in range(self.n)]
        for i, ranges in enumerate(self.hidden()):
            for lo, hi in ranges:
                for j in range(lo, hi):
                    mask[i][j] = False
        return mask

    # --- statistics, by counting ---------------------------------------------

    def in_slot(self, i: int) -> bool:
        return any(s.start <= i < s.end for block in self.all_blocks() for s in block.slots)

    def longest_path(self, start: int = 0) -> int:
        """Tokens from `start` on that lie one after another on the longest way through."""

        def longest(lo: int, hi: int, blocks: list[ParallelBlock]) -> int:
            forks = [block for block in blocks if block.slots]
            beside = [range(s.start, s.end) for block in forks for s in block.slots]
            alone = [i for i in range(max(lo, start), hi) if not any(i in span for span in beside)]
            return len(alone) + sum(
                max(longest(s.start, s.end, s.blocks) for s in block.slots) for block in forks
            )

        return longest(0, self.n, self.blocks)

    def depth(self, start: int = 0) -> int:
        spans = [
            range(block.start, self.n if block.end is None else block.end)
            for block in self.parallel_blocks()
        ]
        return max((sum(i in span for span in spans) for i in range(start, self.n)), default=0)


def well_formed(words: Sequence[str], dialect: Dialect) -> bool:
    """The grammar by rewriting, independent of any reading.

    Only tags count. A whole block, whose branches hold nothing but whole
    blocks, is replaced by `n`, again and again; what is left must be `n`s, and
    thinking that opens and closes in turn.
    """
    code = {tag: _LETTER[role.name] for tag, role in dialect.roles.items()}
    text = "".join(code[word] for word in words if word in code)
    opening, closing = ("P", "p") if dialect.block else ("", "")
    conclusion = "Cc" if dialect.conclusion else ""
    block = re.compile(f"{opening}G((?:Oo)+)g((?:Bn*b)+){conclusion}{closing}")

    def whole(match: re.Match[str]) -> str:
        balanced = match.group(1).count("O") == match.group(2).count("B")
        return "n" if balanced else "!"

    while True:
        shorter = block.sub(whole, text)
        if shorter == text:
            return re.fullmatch(r"n*(Tn*tn*)*(Tn*)?", text) is not None
        text = shorter


_LETTER = {
    "BLOCK_OPEN": "P",
    "BLOCK_CLOSE": "p",
    "GOAL_OPEN": "G",
    "GOAL_CLOSE": "g",
    "OUTLINE_OPEN": "O",
    "OUTLINE_CLOSE": "o",
    "BRANCH_OPEN": "B",
    "BRANCH_CLOSE": "b",
    "CONCLUSION_OPEN": "C",
    "CONCLUSION_CLOSE": "c",
    "THINK_OPEN": "T",
    "THINK_CLOSE": "t",
}
