"""Sums of three to five digits, one step at a time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

from ..gym import Entry
from .base import Family

MAX_TOTAL = 99


def terms(expression: str) -> list[int]:
    """The signed numbers of `17 + 5 - 9`."""
    found = [int(expression.split()[0])]
    words = expression.split()[1:]
    for sign, number in zip(words[::2], words[1::2], strict=True):
        found.append(-int(number) if sign == "-" else int(number))
    return found


def totals(numbers: list[int]) -> list[int]:
    """The running totals, the first number included."""
    found = [numbers[0]]
    for number in numbers[1:]:
        found.append(found[-1] + number)
    return found


def signed(number: int) -> str:
    """`+ 5` or `- 9`."""
    return f"{'-' if number < 0 else '+'} {abs(number)}"


def sum_steps(numbers: list[int]) -> list[str]:
    """`17 + 5 = 22` and `22 - 9 = 13`."""
    return [
        f"{before} {signed(number)} = {after}"
        for number, (before, after) in zip(numbers[1:], pairwise(totals(numbers)), strict=True)
    ]


class ChainSum(Family):
    """Every total on the way is in [0, `MAX_TOTAL`]."""

    name = "chain_sum"
    options: ClassVar[Mapping[str, Any]] = {
        "min_terms": 3,
        "max_terms": 5,
        "min_digits": 1,
        "max_digits": 1,
    }
    templates = (
        "What is {sum}?",
        "Work out {sum}.",
        "Calculate {sum}.",
        "Find the value of {sum}.",
        "How much is {sum}?",
        "Compute {sum}.",
        "Give me the result of {sum}.",
        "{sum}",
    )

    def suits(self, entry: Entry) -> bool:
        numbers = terms(self.outline(entry))
        return 0 not in numbers and all(0 <= t <= MAX_TOTAL for t in totals(numbers))

    def fields(self, entry: Entry) -> dict[str, str]:
        return {"sum": self.outline(entry)}

    def outline(self, entry: Entry) -> str:
        return str(entry["metadata"]["expression"])

    def steps(self, entry: Entry) -> str:
        return ", ".join(sum_steps(terms(self.outline(entry))))

    def result(self, entry: Entry) -> str:
        return str(entry["answer"])
