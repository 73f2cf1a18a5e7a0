"""A live answer as a tree: which branch wrote what, and which branches are its parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from sglang_multiverse.structure import MULTIVERSE

TAG = re.compile("|".join(map(re.escape, MULTIVERSE.tags)))
_CLOSE = MULTIVERSE.branch.close


@dataclass(slots=True)
class Branch:
    """One path of the answer; `()` is the trunk.

    Attributes:
        parts: text and blocks in the order of the linear form. Path names
            start again in every block, so a block ends where its parent goes on.
    """

    path: tuple[int, ...]
    parts: list[str | Block] = field(default_factory=list)

    @property
    def name(self) -> str:
        return ".".join(map(str, self.path))

    @property
    def text(self) -> str:
        """The linear form of this branch and all within it."""
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def closed(self) -> bool:
        return (
            bool(self.parts) and isinstance(last := self.parts[-1], str) and last.endswith(_CLOSE)
        )

    @property
    def growing(self) -> bool:
        """Whether it is the one that writes, rather than the branches within it."""
        return not self.closed and not (self.parts and isinstance(self.parts[-1], Block))

    def write(self, text: str) -> None:
        if self.parts and isinstance(last := self.parts[-1], str):
            self.parts[-1] = last + text
        else:
            self.parts.append(text)

    def child(self, path: tuple[int, ...]) -> Branch:
        """The branch of that path in the block that is open, which is opened if none is."""
        if not self.parts or not isinstance(block := self.parts[-1], Block):
            self.parts.append(block := Block())
        return block.branches.setdefault(path, Branch(path))


@dataclass(slots=True)
class Block:
    branches: dict[tuple[int, ...], Branch] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Branch]:
        """In the order of the plan, which need not be the order of arrival."""
        return (self.branches[path] for path in sorted(self.branches))

    @property
    def text(self) -> str:
        return "".join(branch.text for branch in self)


class Transcript:
    """The pieces of a stream, put where they belong."""

    def __init__(self) -> None:
        self.trunk = Branch(())

    def add(self, path: str, text: str) -> Branch:
        """Add a piece of the branch `path` (`""`, `"1"`, `"2.1"`, …)."""
        steps = tuple(int(step) for step in path.split(".")) if path else ()
        branch = self.trunk
        for depth in range(1, len(steps) + 1):
            branch = branch.child(steps[:depth])
        branch.write(text)
        return branch

    @property
    def text(self) -> str:
        return self.trunk.text

    @property
    def growing(self) -> list[Branch]:
        """The branches that write at this moment; empty while the trunk does."""
        return [branch for branch in _branches(self.trunk) if branch.growing]


def _branches(parent: Branch) -> Iterator[Branch]:
    """The branches of the block in which `parent` waits, and those within them."""
    if parent.parts and isinstance(block := parent.parts[-1], Block):
        for branch in block:
            yield branch
            yield from _branches(branch)
