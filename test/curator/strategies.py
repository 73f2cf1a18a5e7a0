"""Outlines, graphs and spans for the property tests."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sglang_multiverse.curator.schema import Edge, MainStep, Outline, Span
from sglang_multiverse.curator.steps import number_steps, walk_steps
from sglang_multiverse.structure import MULTIVERSE


def quick(examples: int) -> Any:
    """The same examples on every run."""
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@st.composite
def levels(draw, most=9):
    """Weights and forward edges of one level."""
    n = draw(st.integers(0, most))
    pairs = [(a, b) for b in range(n) for a in range(b)]
    edges = frozenset(draw(st.lists(st.sampled_from(pairs)))) if pairs else frozenset()
    return draw(st.lists(st.integers(1, 5), min_size=n, max_size=n)), edges


class Case(NamedTuple):
    """Good answers of the first three stages about some sentences."""

    sentences: tuple[str, ...]
    outline: Outline
    edges: list[Edge]
    spans: list[Span]


PIECES = st.sampled_from(
    ("So it is.", "We get $x. y$.", "x = 3.5", "é…", "- item", *MULTIVERSE.tags, "1:", "\\[a\\]")
)
SPACE = st.sampled_from((" ", "\n", "\n\n", "  "))


@st.composite
def cases(draw):
    mains = draw(
        st.lists(st.integers(0, 3).map(lambda n: 0 if n == 1 else n), min_size=1, max_size=5)
    )
    outline = Outline(
        steps=[MainStep(title="a", substeps=[f"b{j}" for j in range(inner)]) for inner in mains]
    )
    steps = list(walk_steps(number_steps(outline)))
    names = [step.id for step in steps]
    edges = []
    for _ in range(draw(st.integers(0, 6))):
        used, user = sorted(draw(st.tuples(*[st.integers(0, len(names) - 1)] * 2)))
        parts = names[used].split(".")[0] == names[user] or names[user].startswith(
            names[used] + "."
        )
        if used != user and not parts:
            edges.append(Edge(step=names[user], uses=names[used], what="it"))
    spans, sentences = [], []
    for step in steps:
        if step.children and draw(st.booleans()):
            continue
        size = draw(st.integers(1, 3))
        spans.append(Span(step=step.id, first=len(sentences) + 1, last=len(sentences) + size))
        sentences += [draw(PIECES) + draw(SPACE) for _ in range(size)]
    return Case(tuple(sentences), outline, edges, spans)
