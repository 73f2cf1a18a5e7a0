"""The tree: stretches of sentences and parallel blocks; its words are in the source.

Sentences are counted from 0 here, as half-open ranges; prompts and answers count from 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .errors import RejectedError
from .groups import Group, Run, arrange, critical
from .schema import Span
from .steps import Graph, Step, walk_steps


@dataclass(frozen=True, slots=True)
class Text:
    """The sentences `[lo, hi)`."""

    lo: int
    hi: int


@dataclass(frozen=True, slots=True)
class Block:
    """Two or more paths, in the order of the text."""

    paths: tuple[Body, ...]


Body = tuple[Text | Block, ...]
"""What stands one after the other; two `Text`s never stand side by side."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine will fork: most paths of a block, deepest nesting."""

    paths: int = 16
    depth: int = 4


def place_sentences(steps: Sequence[Step], spans: Sequence[Span], count: int) -> dict[str, Text]:
    """Which of `count` sentences belong to which step itself (not to its sub-steps).

    Every step without sub-steps has a span; one with sub-steps may have one,
    for what is said before the first of them. In the order of the outline the
    spans cover every sentence once.

    Raises:
        RejectedError: they do not; each problem names the step or the sentences.
    """
    order = {step.id: i for i, step in enumerate(walk_steps(steps))}
    needed = [step.id for step in walk_steps(steps) if not step.children]
    given: dict[str, Text] = {}
    problems = []
    due, before = 1, -1
    for span in spans:
        if span.step not in order:
            problems.append(f"spans: there is no step {span.step!r}")
            continue
        if span.step in given:
            problems.append(f"spans: {span.step} is there twice; a step is one stretch of text")
            continue
        if order[span.step] < before:
            problems.append(f"spans: {span.step} is out of order; follow the outline")
        if not 1 <= span.first <= span.last <= count:
            problems.append(
                f"spans: {span.step} is {span.first} to {span.last}; "
                f"there are sentences 1 to {count}, and first is at most last"
            )
            continue
        if span.first != due:
            kind = "given twice" if span.first < due else "left out"
            lo, hi = sorted((span.first, due))
            parent = span.step.removesuffix(".1")
            lead = kind == "left out" and parent not in (span.step, *given)
            own = f", unless they are {parent}'s own" if lead else ""
            problems.append(
                f"spans: sentences {lo} to {hi - 1} are {kind} before {span.step}, "
                f"which must start at {due}{own}"
            )
        due, before = span.last + 1, order[span.step]
        given[span.step] = Text(span.first - 1, span.last)
    if due <= count and not problems:
        problems.append(f"spans: sentences {due} to {count} are left out at the end")
    problems += [f"spans: {name} has none" for name in needed if name not in given]
    if problems:
        raise RejectedError(problems)
    return given


def grow(
    steps: Sequence[Step],
    graph: Graph,
    places: dict[str, Text],
    weights: Sequence[int],
    limits: Limits,
) -> Body:
    """The tree of an outline, by its graph.

    Args:
        places: as `place_sentences` gives them.
        weights: of each sentence, for example its characters.
        limits: blocks nested deeper become text, paths beyond the most are joined to neighbours.
    """

    def weight(step: Step) -> int:
        own = sum(weights[places[step.id].lo : places[step.id].hi]) if step.id in places else 0
        if not step.children:
            return max(own, 1)
        inner = [weight(child) for child in step.children]
        return own + critical(arrange(inner, graph.inner[step.id]), inner)

    def bodies(run: Run, of: Sequence[Step]) -> list[Text | Block]:
        found: list[Text | Block] = []
        for part in run:
            if isinstance(part, Group):
                found.append(Block(tuple(_joined(bodies(path, of)) for path in part.paths)))
            else:
                found += step_body(of[part])
        return found

    def step_body(step: Step) -> list[Text | Block]:
        lead: list[Text | Block] = [places[step.id]] if step.id in places else []
        if not step.children:
            return lead
        inner = [weight(child) for child in step.children]
        return lead + bodies(arrange(inner, graph.inner[step.id]), step.children)

    whole = bodies(arrange([weight(step) for step in steps], graph.main), steps)
    return _limited(_joined(whole), limits, 1)


def has_groups(steps: Sequence[Step], graph: Graph) -> bool:
    """Whether the graph lets anything run side by side; no weights change that."""
    levels = [(len(steps), graph.main)]
    levels += [(len(step.children), graph.inner[step.id]) for step in steps]
    return any(
        any(isinstance(part, Group) for part in arrange([1] * count, edges))
        for count, edges in levels
    )


def _joined(parts: Sequence[Text | Block]) -> Body:
    """Neighbouring stretches as one."""
    found: list[Text | Block] = []
    for part in parts:
        if isinstance(part, Text) and found and isinstance(found[-1], Text):
            found[-1] = Text(found[-1].lo, part.hi)
        else:
            found.append(part)
    return tuple(found)


def _limited(body: Body, limits: Limits, depth: int) -> Body:
    found: list[Text | Block] = []
    for part in body:
        if isinstance(part, Text):
            found.append(part)
        elif depth > limits.depth:
            found.append(extent((part,)))
        else:
            paths, most = part.paths, limits.paths
            if len(paths) > most:
                cuts = [i * len(paths) // most for i in range(most + 1)]
                paths = tuple(
                    _joined([one for path in paths[a:b] for one in path]) for a, b in pairwise(cuts)
                )
            found.append(Block(tuple(_limited(path, limits, depth + 1) for path in paths)))
    return _joined(found)


def extent(body: Body) -> Text:
    """All sentences of a body, which are adjacent."""
    first, last = body[0], body[-1]
    lo = first.lo if isinstance(first, Text) else extent(first.paths[0]).lo
    hi = last.hi if isinstance(last, Text) else extent(last.paths[-1]).hi
    return Text(lo, hi)


def walk_blocks(body: Body) -> Iterator[Block]:
    """Every block in the order of the text, each before those in its paths."""
    for part in body:
        if isinstance(part, Block):
            yield part
            for path in part.paths:
                yield from walk_blocks(path)


def leaves(body: Body) -> Iterator[Text]:
    """Every stretch of sentences, in order."""
    for part in body:
        if isinstance(part, Text):
            yield part
        else:
            for path in part.paths:
                yield from leaves(path)


def source_text(body: Body, sentences: Sequence[str]) -> str:
    """The source, byte for byte: what makes the tree lossless."""
    return "".join(s for part in leaves(body) for s in sentences[part.lo : part.hi])
