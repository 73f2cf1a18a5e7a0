"""How many rows and slots a load would hold if nothing ever had to wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from load import MAX_TOKENS, Prompt

from sglang_multiverse.structure import TagTable, parse, walk


class Demand(NamedTuple):
    """Of all clients together, on average over time.

    Attributes:
        rows: a trunk holds one all the time, parked or not, a branch until it closes.
        slots: each prompt's once, however many clients ask it.
        longest: slots of the longest answer that a prompt may get.
    """

    rows: float
    slots: float
    longest: int


def demand(prompts: Sequence[Prompt], tags: TagTable, clients: int) -> Demand:
    """By the answers that are due, one position a step; long answers count for longer."""
    rows = slots = steps = 0
    for prompt in prompts:
        start = len(prompt.ids)
        trace = parse((*prompt.ids, *prompt.rest), tags)
        positions = trace.positions
        first, last = min(positions[start:]), max(positions[start:])
        steps += last - first + 1
        rows += last - first + 1
        slots += sum(last - position + 1 for position in positions[start:])
        for branch in (b for block in walk(trace.blocks) for b in block.branches):
            if branch.span.hi > start:
                begin = max(branch.span.lo, start)
                rows += positions[branch.span.hi - 1] - positions[begin] + 1
    shared = sum(len(prompt.ids) for prompt in prompts) * min(1, clients / len(prompts))
    longest = max(len(prompt.ids) for prompt in prompts) + MAX_TOKENS
    return Demand(clients * rows / steps, clients * slots / steps + shared, longest)
