"""Legs of a few animals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..gym import Entry
from .base import Family, listed
from .chain_sum import sum_steps

# Animals of the dataset that everybody knows, and their plurals.
LEGS = {
    "chicken": 2,
    "bird": 2,
    "duck": 2,
    "dog": 4,
    "cat": 4,
    "cow": 4,
    "horse": 4,
    "lion": 4,
    "elephant": 4,
    "tiger": 4,
    "sheep": 4,
    "ant": 6,
    "bee": 6,
    "spider": 8,
}
PLURALS = {"sheep": "sheep"}


def animals(entry: Entry) -> dict[str, int]:
    """Animal → how many of it."""
    return dict(entry["metadata"]["animals"])


def counted(animal: str, count: int) -> str:
    """`3 dogs`"""
    return f"{count} {animal if count == 1 else PLURALS.get(animal, animal + 's')}"


class LegCounting(Family):
    name = "leg_counting"
    options: ClassVar[Mapping[str, Any]] = {
        "min_animals": 2,
        "max_animals": 3,
        "min_instances": 1,
        "max_instances": 5,
    }
    templates = (
        "How many legs do {animals} have in total?",
        "How many legs are there on {animals}?",
        "Count the legs of {animals}.",
        "I see {animals}: how many legs is that?",
        "A farm keeps {animals}, so how many legs are there altogether?",
        "Find the total number of legs of {animals}.",
    )

    def suits(self, entry: Entry) -> bool:
        return all(animal in LEGS for animal in animals(entry))

    def fields(self, entry: Entry) -> dict[str, str]:
        return {"animals": listed([counted(*pair) for pair in animals(entry).items()])}

    def outline(self, entry: Entry) -> str:
        return "legs of " + ", ".join(counted(*pair) for pair in animals(entry).items())

    def steps(self, entry: Entry) -> str:
        legs = [(animal, n, n * LEGS[animal]) for animal, n in animals(entry).items()]
        products = [f"{animal} {n} x {LEGS[animal]} = {total}" for animal, n, total in legs]
        addends = [total for _, _, total in legs]
        return ", ".join([*products, *sum_steps(addends)])

    def result(self, entry: Entry) -> str:
        return str(entry["answer"])
