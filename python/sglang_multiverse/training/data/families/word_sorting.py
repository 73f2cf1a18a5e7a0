"""Three or four words with different initials, sorted by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..gym import Entry
from .base import Family, split_list


def words(entry: Entry) -> list[str]:
    return [str(word).lower() for word in entry["metadata"]["original_words"]]


class WordSorting(Family):
    name = "word_sorting"
    options: ClassVar[Mapping[str, Any]] = {
        "min_words": 3,
        "max_words": 4,
        "min_word_length": 3,
        "max_word_length": 8,
    }
    up = (
        "Sort these words alphabetically: {words}.",
        "Put the words {words} in alphabetical order.",
        "Arrange {words} from A to Z.",
        "Order the words {words} alphabetically.",
        "List {words} in alphabetical order.",
    )
    down = (
        "Sort these words in reverse alphabetical order: {words}.",
        "Put the words {words} in reverse alphabetical order.",
        "Arrange {words} from Z to A.",
        "Order the words {words} from Z to A.",
    )
    templates = (*up, *down)

    def ascending(self, entry: Entry) -> bool:
        return bool(entry["metadata"]["direction"] == "ascending")

    def choose(self, entry: Entry) -> tuple[str, ...]:
        return self.up if self.ascending(entry) else self.down

    def suits(self, entry: Entry) -> bool:
        # Lower case throughout, as the dataset's order is that of character codes.
        given = list(entry["metadata"]["original_words"])
        initials = {word[0] for word in given}
        plain = all(word.isascii() and word.isalpha() and word.islower() for word in given)
        return plain and len(initials) == len(given)

    def fields(self, entry: Entry) -> dict[str, str]:
        return {"words": ", ".join(words(entry))}

    def direction(self, entry: Entry) -> str:
        return "A to Z" if self.ascending(entry) else "Z to A"

    def outline(self, entry: Entry) -> str:
        return f"sort {self.direction(entry)} {', '.join(words(entry))}"

    def steps(self, entry: Entry) -> str:
        given = words(entry)
        spelled = ", ".join(f"{word[0]} {word}" for word in given)
        initials = sorted((word[0] for word in given), reverse=not self.ascending(entry))
        return f"{spelled}; {self.direction(entry)}: {' '.join(initials)}"

    def result(self, entry: Entry) -> str:
        return ", ".join(sorted(words(entry), reverse=not self.ascending(entry)))

    def read(self, text: str) -> str:
        return ", ".join(split_list(text))
