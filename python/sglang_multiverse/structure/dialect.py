"""The tag strings of a native-parallel language, as data.

A `Dialect` maps the roles of the grammar (block, goal, outline, branch,
conclusion) to tags. Multiverse (arXiv 2506.09991) is the default; NPR and
ThreadWeaver show that the roles are wide enough: NPR has no tag around the
block, ThreadWeaver none around the conclusion.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, unique

_LABEL = re.compile(r"\s*(\d+(?:\.\d+)*)\s*:")


@unique
class Role(Enum):
    """What a tag does when it is read in place."""

    BLOCK_OPEN = "block open"
    BLOCK_CLOSE = "block close"
    GOAL_OPEN = "goal open"
    GOAL_CLOSE = "goal close"
    OUTLINE_OPEN = "outline open"
    OUTLINE_CLOSE = "outline close"
    BRANCH_OPEN = "branch open"
    BRANCH_CLOSE = "branch close"
    CONCLUSION_OPEN = "conclusion open"
    CONCLUSION_CLOSE = "conclusion close"
    THINK_OPEN = "think open"
    THINK_CLOSE = "think close"


@dataclass(frozen=True, slots=True)
class TagPair:
    """An opening and a closing tag; each is one token of the vocabulary."""

    open: str
    close: str


@dataclass(frozen=True, slots=True)
class Dialect:
    """The tags of one language.

    Attributes:
        block: tags around the whole block; `None` when the goal opens the
            block and the conclusion closes it (NPR).
        conclusion: `None` when the text after the last branch runs to the
            closing block tag (ThreadWeaver).
        think: tags around the reasoning as a whole. They carry no structure;
            the guard only keeps them out of blocks.
    """

    name: str
    goal: TagPair
    outline: TagPair
    branch: TagPair
    block: TagPair | None = None
    conclusion: TagPair | None = None
    think: TagPair | None = None

    def __post_init__(self) -> None:
        if self.block is None and self.conclusion is None:
            raise ValueError(
                f"dialect {self.name!r}: one of block and conclusion must close the block"
            )
        tags = self.tags
        if len(set(tags)) != len(tags):
            raise ValueError(f"dialect {self.name!r}: a tag is used for two roles: {tags}")

    @property
    def roles(self) -> dict[str, Role]:
        """Tag string → role, in the order in which tags join a vocabulary."""
        pairs = (
            (self.think, Role.THINK_OPEN, Role.THINK_CLOSE),
            (self.block, Role.BLOCK_OPEN, Role.BLOCK_CLOSE),
            (self.goal, Role.GOAL_OPEN, Role.GOAL_CLOSE),
            (self.outline, Role.OUTLINE_OPEN, Role.OUTLINE_CLOSE),
            (self.branch, Role.BRANCH_OPEN, Role.BRANCH_CLOSE),
            (self.conclusion, Role.CONCLUSION_OPEN, Role.CONCLUSION_CLOSE),
        )
        roles: dict[str, Role] = {}
        for pair, open_role, close_role in pairs:
            if pair is not None:
                roles[pair.open] = open_role
                roles[pair.close] = close_role
        return roles

    @property
    def tags(self) -> tuple[str, ...]:
        pairs = (self.think, self.block, self.goal, self.outline, self.branch, self.conclusion)
        return tuple(tag for pair in pairs if pair is not None for tag in (pair.open, pair.close))

    def branch_header(self, label: str) -> str:
        """The text a branch starts with; the engine forces it."""
        return f"\n{self.branch.open}\n{label}:"

    @property
    def conclusion_header(self) -> str:
        """The text that follows the last branch; the engine forces it."""
        return f"\n{self.conclusion.open}\n" if self.conclusion is not None else "\n"


MULTIVERSE = Dialect(
    name="multiverse",
    think=TagPair("<Think>", "</Think>"),
    block=TagPair("<Parallel>", "</Parallel>"),
    goal=TagPair("<Goal>", "</Goal>"),
    outline=TagPair("<Outline>", "</Outline>"),
    branch=TagPair("<Path>", "</Path>"),
    conclusion=TagPair("<Conclusion>", "</Conclusion>"),
)

NPR = Dialect(
    name="npr",
    goal=TagPair("<guideline>", "</guideline>"),
    outline=TagPair("<plan>", "</plan>"),
    branch=TagPair("<step>", "</step>"),
    conclusion=TagPair("<takeaway>", "</takeaway>"),
)

THREADWEAVER = Dialect(
    name="threadweaver",
    block=TagPair("<Parallel>", "</Parallel>"),
    goal=TagPair("<Outlines>", "</Outlines>"),
    outline=TagPair("<Outline>", "</Outline>"),
    branch=TagPair("<Thread>", "</Thread>"),
)


def outline_label(text: str, index: int, parent: str = "") -> str:
    """The label an outline gives its branch: the `1.2` of `1.2: do this`.

    An outline without one gets its place among its siblings (`index` counts
    from 1) behind the label of the branch it stands in.
    """
    match = _LABEL.match(text)
    if match:
        return match.group(1)
    return f"{parent}.{index}" if parent else str(index)
