"""A linear answer as its sequences, token for token: what reinforcement learning trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import Annotated

from .automaton import Automaton, Phase
from .tags import TagTable

# A branch of each open block, outermost first: where the block's goal ends, and which branch.
# Blocks that follow each other have branches of the same name.
Place = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class PathTokens:
    """The tokens of an answer that one branch wrote, or the trunk, in order.

    `ids`, `positions` and `logprobs` have one entry per token, in the order of `spans`.
    """

    path: Annotated[
        str,
        'branch indices from 1, `"2.1"`; `""` is the trunk; branches of blocks that follow each '
        "other share their names",
    ]
    parent: Annotated[str | None, "the path that it branches off from; `null` for the trunk"]
    spans: Annotated[
        list[tuple[int, int]], "where its tokens stand in the linear answer, half-open `[lo, hi)`"
    ] = field(default_factory=list)
    ids: Annotated[list[int], "its tokens"] = field(default_factory=list)
    positions: Annotated[list[int], "their position ids"] = field(default_factory=list)
    logprobs: Annotated[
        list[float | None],
        "those of the distribution they were drawn from (without the guard, the model's own); "
        "`null` for a forced token, which is not to be trained on",
    ] = field(default_factory=list)


def sequences(
    prompt: Sequence[int],
    answer: Sequence[int],
    logprobs: Sequence[float | None],
    tags: TagTable,
) -> list[PathTokens]:
    """Split an answer by branch, in the order in which they begin; the trunk is one, too.

    `logprobs` has one entry per token of `answer`. A token belongs to the branch
    whose layout it has (DESIGN.md §3): white space before a branch's opening tag
    to that branch, white space before a conclusion to the parent.
    """
    automaton = Automaton(tags)
    automaton.feed(prompt)
    places: list[Place] = []
    positions: list[int] = []
    for token in answer:
        places.append(_place(automaton))
        positions.append(automaton.position)
        automaton.push(token)

    found: dict[Place, PathTokens] = {}
    indices = count()
    for place, run in groupby(places):
        here = [next(indices) for _ in run]
        one = found.get(place)
        if one is None:
            one = found[place] = PathTokens(_name(place), _name(place[:-1]) if place else None)
        one.spans.append((here[0], here[-1] + 1))
        one.ids.extend(answer[i] for i in here)
        one.positions.extend(positions[i] for i in here)
        one.logprobs.extend(logprobs[i] for i in here)
    return list(found.values())


def _place(automaton: Automaton) -> Place:
    """Where the next token belongs."""
    return tuple(
        (frame.goal_end, frame.closed + 1)
        for frame in automaton.frames
        if frame.phase in (Phase.HEAD, Phase.BRANCH)
    )


def _name(place: Place) -> str:
    return ".".join(str(branch) for _, branch in place)
