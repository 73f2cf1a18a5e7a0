"""What a task family adds to a reasoning-gym dataset: wording, a worked solution, a reading."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

from ..conversation import Split
from ..gym import Entry, draw, score
from ..splits import split_of


@dataclass(frozen=True, slots=True)
class Task:
    """One task in words, with its solution.

    Attributes:
        request: what the user asks, a full sentence.
        outline: the task in short, with all that `work` needs.
        work: the steps, a line that ends with `Result: ….`
        result: the answer as `work` and the conclusion write it.
    """

    family: str
    request: str
    outline: str
    work: str
    result: str
    entry: Entry = field(repr=False)


class Family(ABC):
    """One reasoning-gym dataset, in the sizes that a small model can learn."""

    name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]]
    templates: ClassVar[tuple[str, ...]]

    @abstractmethod
    def suits(self, entry: Entry) -> bool:
        """Whether the entry is small and plain enough."""

    @abstractmethod
    def fields(self, entry: Entry) -> dict[str, str]:
        """What the templates are filled with."""

    @abstractmethod
    def outline(self, entry: Entry) -> str:
        """The task in short; it also identifies it."""

    @abstractmethod
    def steps(self, entry: Entry) -> str:
        """The worked steps, without the result."""

    @abstractmethod
    def result(self, entry: Entry) -> str:
        """The answer as the solution writes it."""

    def choose(self, entry: Entry) -> tuple[str, ...]:
        """The templates that fit the entry."""
        return self.templates

    def read(self, text: str) -> str:
        """The answer `text` in the form that reasoning-gym's scorer reads."""
        return text

    def right(self, text: str, entry: Entry) -> bool:
        """Whether reasoning-gym's scorer takes the answer as wholly right."""
        return score(self.name, self.read(text), entry) == 1.0

    def worked(self, entry: Entry) -> str:
        """`17 + 5 = 22, 22 - 9 = 13. Result: 13.`"""
        return f"{self.steps(entry)}. Result: {self.result(entry)}."

    def entry(self, rng: Random, split: Split) -> Entry:
        """An entry of the split."""
        return draw(
            self.name,
            self.options,
            rng,
            split,
            lambda entry: (
                self.suits(entry) and split_of(f"{self.name}/{self.outline(entry)}") == split
            ),
        )

    def task(self, rng: Random, split: Split) -> Task:
        """A task of the split, in a wording drawn from the templates."""
        entry = self.entry(rng, split)
        request = rng.choice(self.choose(entry)).format(**self.fields(entry))
        return Task(
            family=self.name,
            request=request,
            outline=self.outline(entry),
            work=self.worked(entry),
            result=self.result(entry),
            entry=entry,
        )


def listed(words: list[str]) -> str:
    """`a, b and c`"""
    *rest, last = words
    return f"{', '.join(rest)} and {last}" if rest else last


def split_list(text: str) -> list[str]:
    """The items of `3, 5, 9`."""
    return [item.strip() for item in text.split(",") if item.strip()]
