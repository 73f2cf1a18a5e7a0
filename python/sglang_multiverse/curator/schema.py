"""What the model answers at each stage. Every field is required, as strict JSON schemas want it."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """An answer of any stage, or a part of one."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class MainStep(Answer):
    title: str
    substeps: list[str]


class Outline(Answer):
    """Stage 1: the steps in the order of the text; code numbers them S1, S2, S2.1, …"""

    steps: list[MainStep]


class Edge(Answer):
    """`step` uses a result of `uses`; `what` says which."""

    step: str
    uses: str
    what: str


class Dependencies(Answer):
    """Stage 2: every use of an earlier step's result."""

    edges: list[Edge]


class Span(Answer):
    """The sentences `first` to `last`, both included, are the text of `step`."""

    step: str
    first: int
    last: int


class Refill(Answer):
    """Stage 3: every sentence belongs to one step, in order."""

    spans: list[Span]


class Plan(Answer):
    group: str
    outlines: list[str]
    conclusion: str


class Plans(Answer):
    """Stage 4: for each group one outline per path, and a conclusion."""

    groups: list[Plan]


class Sentence(Answer):
    number: int
    text: str


class PathOutline(Answer):
    path: str
    text: str


class GroupConclusion(Answer):
    group: str
    text: str


class Rewrite(Answer):
    """Stage 5: new words for what needs them; what is not named stays as it is."""

    sentences: list[Sentence]
    outlines: list[PathOutline]
    conclusions: list[GroupConclusion]


@cache
def json_schema(answer: type[Answer]) -> dict[str, Any]:
    """The JSON schema of `answer` without titles and descriptions, which cost tokens.

    It is made once; do not change it.
    """
    return _bare(answer.model_json_schema())


def _bare(schema: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties" or key == "$defs":
            kept[key] = {name: _bare(inner) for name, inner in value.items()}
        elif key not in ("title", "description"):
            kept[key] = _bare(value) if isinstance(value, dict) else value
    return kept
