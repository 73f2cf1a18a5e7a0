"""Sequential problems: each step needs the one before, so the solution opens no block.

The first step is a task of a family; what follows is made from its result. The
last answer is scored by the reasoning-gym scorer of the last step's family. The
steps are often numbered, so that a list alone is no reason to go parallel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from .conversation import Split
from .families import FAMILIES
from .families import chain_sum as sums
from .families.letter_counting import tally
from .families.number_filtering import kept
from .families.number_sorting import commas, numbers, picks
from .gym import Entry

OPENING = "Each step needs the one before, so I go step by step."


@dataclass(frozen=True, slots=True)
class Chain:
    """A sequential problem.

    Attributes:
        requests: what the user asks, step by step.
        work: the worked steps, one for each request.
        family, entry: what the last answer is scored with.
    """

    requests: tuple[str, ...]
    work: tuple[str, ...]
    result: str
    family: str
    entry: Entry = field(repr=False)


def chain(rng: Random, split: Split, family: str) -> Chain:
    """A sequential problem whose first step is a task of `family`."""
    return _CHAINS[family](rng, split)


def ask(rng: Random, requests: tuple[str, ...]) -> str:
    """One message that asks for the steps in turn."""
    first, *rest = requests
    if rng.random() < 0.5:
        lines = [f"{i}. {request}" for i, request in enumerate(requests, 1)]
        header = rng.choice(("Do this step by step:", "Follow these steps:", "In this order:"))
        return "\n".join([header, *lines])
    links = ("Then", "After that,", "Next,")
    return " ".join([first, *(f"{rng.choice(links)} {r[0].lower()}{r[1:]}" for r in rest)])


def _change(rng: Random, value: int) -> tuple[str, int]:
    """A change of `value` by a digit that stays in [0, 99], in words and as a signed number."""
    if value > 1 and (value > 80 or rng.random() < 0.5):
        less = rng.randint(1, min(value, 9))
        return rng.choice((f"Subtract {less} from it.", f"Take away {less}.")), -less
    more = rng.randint(1, min(9, sums.MAX_TOTAL - value))
    return rng.choice((f"Add {more} to it.", f"Add {more}.")), more


def _number(value: int) -> dict[str, Any]:
    """The reasoning-gym entry of a sum."""
    return {"answer": str(value), "metadata": {}}


def _summed(rng: Random, split: Split) -> Chain:
    task = FAMILIES["chain_sum"].task(rng, split)
    first, *rest = sums.terms(task.outline)
    requests = [rng.choice((f"Start with {first}.", f"Take the number {first}."))]
    requests += [f"Add {n}." if n > 0 else f"Subtract {-n}." for n in rest]
    work = [f"start with {first}", *sums.sum_steps([first, *rest])]
    return Chain(tuple(requests), tuple(work), task.result, "chain_sum", task.entry)


def _counted(family: str) -> Callable[[Random, Split], Chain]:
    """A count, followed by one or two changes of it."""

    def make(rng: Random, split: Split) -> Chain:
        task = FAMILIES[family].task(rng, split)
        value = int(task.result)
        requests, work = [task.request], [task.work.removesuffix(f" Result: {value}.")[:-1]]
        for _ in range(rng.randint(1, 2)):
            said, change = _change(rng, value)
            requests.append(said)
            work.append(f"{value} {sums.signed(change)} = {value + change}")
            value += change
        return Chain(tuple(requests), tuple(work), str(value), "chain_sum", _number(value))

    return make


def _sorted_then_added(rng: Random, split: Split) -> Chain:
    family = FAMILIES["number_sorting"]
    task = family.task(rng, split)
    a, b, *_ = map(int, task.result.split(","))
    said = rng.choice(("Add the first two numbers of the result.", "Add the first two of them."))
    work = (f"{family.steps(task.entry)}; so {task.result}", f"{a} + {b} = {a + b}")
    return Chain((task.request, said), work, str(a + b), "chain_sum", _number(a + b))


def _filtered_then_sorted(rng: Random, split: Split) -> Chain:
    family = FAMILIES["number_filtering"]
    while True:
        task = family.task(rng, split)
        if 2 <= len(kept(task.entry)) <= 3:
            break
    left = [int(number) for number in kept(task.entry)]
    ascending = rng.random() < 0.5
    order = "smallest" if ascending else "largest"
    said = rng.choice(
        (f"Sort what is left, {order} first.", f"Put the rest in order, {order} first.")
    )
    entry = {
        "answer": str([str(n) for n in sorted(left, reverse=not ascending)]),
        "metadata": {
            "original_numbers": [str(n) for n in left],
            "direction": "ascending" if ascending else "descending",
        },
    }
    result = commas(sorted(numbers(entry), reverse=not ascending))
    work = (
        f"{family.steps(task.entry)}; so {task.result}",
        f"{order} of {picks(left, ascending=ascending)}",
    )
    return Chain((task.request, said), work, result, "number_sorting", entry)


def _reversed_then_counted(rng: Random, split: Split) -> Chain:
    family = FAMILIES["word_sequence_reversal"]
    task = family.task(rng, split)
    first = task.result.split(",")[0]
    letter = rng.choice(sorted(set(first)))
    count = first.count(letter)
    said = rng.choice(
        (
            f"Count the letter {letter} in the first word of the result.",
            f"Say how many times {letter} appears in the first word.",
        )
    )
    work = (
        f"{family.steps(task.entry)}; so {task.result}",
        f"{letter} in {first}: {tally(first, letter)}",
    )
    entry = {"answer": str(count), "metadata": {}}
    return Chain((task.request, said), work, str(count), "letter_counting", entry)


_CHAINS: dict[str, Callable[[Random, Split], Chain]] = {
    "chain_sum": _summed,
    "leg_counting": _counted("leg_counting"),
    "letter_counting": _counted("letter_counting"),
    "number_sorting": _sorted_then_added,
    "number_filtering": _filtered_then_sorted,
    "word_sequence_reversal": _reversed_then_counted,
}
