"""The outline as a tree of steps of two levels, and dependencies between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .errors import RejectedError
from .schema import Edge, Outline

MAX_STEPS = 60
"""Most steps at one level: what is finer than that is no outline."""


@dataclass(frozen=True, slots=True)
class Step:
    """`id` is `S2` or, for a sub-step, `S2.1`."""

    id: str
    title: str
    children: tuple[Step, ...] = ()


def number_steps(outline: Outline) -> tuple[Step, ...]:
    """The steps with their ids.

    Raises:
        RejectedError: there are no steps, too many, or one without a title.
    """
    problems = []
    if not outline.steps:
        problems.append("steps: there is none; give at least one")
    sizes = [len(outline.steps), *(len(main.substeps) for main in outline.steps)]
    if max(sizes) > MAX_STEPS:
        problems.append(f"steps: {max(sizes)} at one level; give at most {MAX_STEPS}")
    steps = tuple(
        Step(
            f"S{i}",
            _line(main.title),
            tuple(Step(f"S{i}.{j}", _line(title)) for j, title in enumerate(main.substeps, 1)),
        )
        for i, main in enumerate(outline.steps, 1)
    )
    problems += [f"{step.id}: has no title" for step in walk_steps(steps) if not step.title]
    if problems:
        raise RejectedError(problems)
    return steps


def _line(title: str) -> str:
    return " ".join(title.split())


def walk_steps(steps: Sequence[Step]) -> Iterator[Step]:
    """Every step, each before its sub-steps."""
    for step in steps:
        yield step
        yield from step.children


Edges = frozenset[tuple[int, int]]
"""Pairs (used, user) of places at one level, used < user."""


@dataclass(frozen=True, slots=True)
class Graph:
    """The dependencies of an outline, level by level.

    Attributes:
        main: between main steps.
        inner: by the id of a main step, between its sub-steps.
    """

    main: Edges
    inner: dict[str, Edges]


def make_graph(steps: Sequence[Step], edges: Sequence[Edge]) -> Graph:
    """The edges at the levels where the two steps are siblings or have ancestors that are.

    A step stands in the text, so it can use what stands before it and nothing
    else. This is checked, and with it that there is no cycle: every cycle has
    an edge that goes backwards.

    Raises:
        RejectedError: an edge names a step that is not there, one twice, a step
            and a part of it, or a later step as the one used.
    """
    place = {
        step.id: (i, j)
        for i, main in enumerate(steps)
        for j, step in enumerate((main, *main.children), -1)
    }
    main: set[tuple[int, int]] = set()
    inner: dict[str, set[tuple[int, int]]] = {step.id: set() for step in steps}
    problems = []
    for edge in edges:
        unknown = [name for name in (edge.step, edge.uses) if name not in place]
        if unknown:
            problems += [f"edges: there is no step {name!r}" for name in unknown]
            continue
        (user, user_part), (used, used_part) = place[edge.step], place[edge.uses]
        if edge.step == edge.uses:
            problems.append(f"edges: {edge.step} uses itself")
        elif user == used and -1 in (user_part, used_part):
            problems.append(f"edges: of {edge.step} and {edge.uses} one is a part of the other")
        elif (used, used_part) > (user, user_part):
            problems.append(
                f"edges: {edge.step} uses {edge.uses}, which stands after it; a step uses "
                "earlier steps only, and there are no cycles"
            )
        elif user == used:
            inner[steps[user].id].add((used_part, user_part))
        else:
            main.add((used, user))
    if problems:
        raise RejectedError(problems)
    return Graph(frozenset(main), {name: frozenset(found) for name, found in inner.items()})
