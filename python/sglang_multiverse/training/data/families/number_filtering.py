"""Short lists of digits, filtered by a threshold one number at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..gym import Entry
from .base import Family, split_list


def given(entry: Entry) -> list[str]:
    return list(entry["metadata"]["original_numbers"])


def threshold(entry: Entry) -> str:
    return str(entry["metadata"]["filter_value"])


def kept(entry: Entry) -> list[str]:
    return list(entry["metadata"]["result"])


class NumberFiltering(Family):
    """No number equals the threshold, none repeats, and something is kept."""

    name = "number_filtering"
    options: ClassVar[Mapping[str, Any]] = {
        "min_numbers": 3,
        "max_numbers": 5,
        "max_decimals": 0,
        "min_value": 1.0,
        "max_value": 9.0,
    }
    keep = (
        "Keep only the numbers {side} than {limit} in {numbers}.",
        "From {numbers}, keep those {side} than {limit}.",
        "Which of {numbers} are {side} than {limit}?",
        "List the numbers in {numbers} that are {side} than {limit}.",
        "Pick out all numbers {side} than {limit} from {numbers}.",
    )
    remove = (
        "Remove all numbers {side} than {limit} from {numbers}.",
        "From {numbers}, drop those {side} than {limit}.",
        "Take the numbers {side} than {limit} out of {numbers}.",
        "Delete every number {side} than {limit} in {numbers}.",
    )
    templates = (*keep, *remove)

    def choose(self, entry: Entry) -> tuple[str, ...]:
        return self.keep if self.operation(entry)[0] == "keep" else self.remove

    def operation(self, entry: Entry) -> tuple[str, str]:
        """`keep` or `remove`, and `larger` or `smaller`."""
        verb, _, side = str(entry["metadata"]["operation"]).partition("_")
        return verb, side

    def suits(self, entry: Entry) -> bool:
        numbers = [*given(entry), threshold(entry)]
        return len(set(numbers)) == len(numbers) and bool(kept(entry))

    def fields(self, entry: Entry) -> dict[str, str]:
        _, side = self.operation(entry)
        return {"numbers": ", ".join(given(entry)), "limit": threshold(entry), "side": side}

    def test(self, entry: Entry) -> str:
        """`keep > 40`"""
        verb, side = self.operation(entry)
        return f"{verb} {'>' if side == 'larger' else '<'} {threshold(entry)}"

    def outline(self, entry: Entry) -> str:
        return f"{self.test(entry)} in {' '.join(given(entry))}"

    def steps(self, entry: Entry) -> str:
        # The comparison in writing, before what follows from it: as one step, a small model
        # confuses `keep >` with `remove >`.
        stays, limit = set(kept(entry)), threshold(entry)
        marks = [
            f"{n} {'>' if int(n) > int(limit) else '<'} {limit} {'stays' if n in stays else 'goes'}"
            for n in given(entry)
        ]
        return f"{self.test(entry)}: {', '.join(marks)}"

    def result(self, entry: Entry) -> str:
        return ", ".join(kept(entry))

    def read(self, text: str) -> str:
        return str(split_list(text))
