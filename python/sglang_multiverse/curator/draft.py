"""An example on its way through the stages."""

from __future__ import annotations

from dataclasses import dataclass, field

from .render import Wording
from .steps import Graph, Step
from .tree import Body, Limits


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a source.

    Attributes:
        id: unique in its source.
        thinking: the sequential reasoning, which is curated.
        answer: what follows it and stays as it is; empty where there is none.
        reference: the known right answer, handed through.
    """

    id: str
    question: str
    thinking: str
    answer: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """What the stages so far have found; a stage returns a draft with more in it.

    Attributes:
        sentences: the thinking, split; joined they are it.
        remarks: what is less than good and was accepted, each with its stage's name.
    """

    example: Example
    sentences: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    graph: Graph | None = None
    body: Body = ()
    plan: Wording | None = None
    rewritten: Wording | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What an answer is held to.

    Attributes:
        max_edit: most normalised edit distance of a rewritten path to its source.
        limits: of the tree.
    """

    max_edit: float = 0.2
    limits: Limits = field(default_factory=Limits)
