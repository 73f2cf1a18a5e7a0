"""Short lists of digits, sorted by picking the next one from what is left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from ..gym import Entry
from .base import Family, split_list


def numbers(entry: Entry) -> list[int]:
    """The numbers as the user gives them."""
    return [round(float(text)) for text in entry["metadata"]["original_numbers"]]


def picks(given: list[int], *, ascending: bool) -> str:
    """`41 7 23 -> 7; 41 23 -> 23; 41`"""
    left, steps = list(given), []
    while len(left) > 1:
        pick = min(left) if ascending else max(left)
        steps.append(f"{' '.join(map(str, left))} -> {pick}")
        left.remove(pick)
    return "; ".join([*steps, commas(left)])


def commas(items: list[int]) -> str:
    return ", ".join(map(str, items))


class NumberSorting(Family):
    name = "number_sorting"
    options: ClassVar[Mapping[str, Any]] = {
        "min_numbers": 3,
        "max_numbers": 4,
        "max_decimals": 0,
        "min_value": 1.0,
        "max_value": 9.0,
    }
    up = (
        "Sort {numbers} in ascending order.",
        "Put {numbers} in order from smallest to largest.",
        "Arrange these numbers from low to high: {numbers}.",
        "Order {numbers}, smallest first.",
        "Sort the list {numbers} in increasing order.",
    )
    down = (
        "Sort {numbers} in descending order.",
        "Put {numbers} in order from largest to smallest.",
        "Arrange these numbers from high to low: {numbers}.",
        "Order {numbers}, largest first.",
        "Sort the list {numbers} in decreasing order.",
    )
    templates = (*up, *down)

    def ascending(self, entry: Entry) -> bool:
        return bool(entry["metadata"]["direction"] == "ascending")

    def choose(self, entry: Entry) -> tuple[str, ...]:
        return self.up if self.ascending(entry) else self.down

    def suits(self, entry: Entry) -> bool:
        return len(set(numbers(entry))) == len(numbers(entry))

    def fields(self, entry: Entry) -> dict[str, str]:
        return {"numbers": commas(numbers(entry))}

    def outline(self, entry: Entry) -> str:
        order = "smallest" if self.ascending(entry) else "largest"
        return f"sort {order} first {' '.join(map(str, numbers(entry)))}"

    def steps(self, entry: Entry) -> str:
        ascending = self.ascending(entry)
        order = "smallest" if ascending else "largest"
        return f"{order} of {picks(numbers(entry), ascending=ascending)}"

    def result(self, entry: Entry) -> str:
        return commas(sorted(numbers(entry), reverse=not self.ascending(entry)))

    def read(self, text: str) -> str:
        return json.dumps(split_list(text))

    def right(self, text: str, entry: Entry) -> bool:
        # The scorer lets every number be off by one, which is no answer to whole numbers.
        same = sorted(split_list(text)) == sorted(map(str, numbers(entry)))
        return same and super().right(text, entry)
