"""A few short words in reverse order, numbered first so that the order can be read backwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..gym import Entry
from .base import Family, split_list


def words(entry: Entry) -> list[str]:
    """The words as the user gives them: the dataset stores them the other way round."""
    return list(reversed(split_list(str(entry["answer"]))))


class WordReversal(Family):
    name = "word_sequence_reversal"
    options: ClassVar[Mapping[str, Any]] = {"min_words": 3, "max_words": 5}
    templates = (
        "Reverse the list {words}.",
        "Put the words {words} in reverse order.",
        "Write these words backwards, last one first: {words}.",
        "List {words} from the last to the first.",
        "Give me {words} in the opposite order.",
        "Turn this list of words around: {words}.",
    )

    def suits(self, entry: Entry) -> bool:
        given = words(entry)
        plain = all(w.isascii() and w.isalpha() and w.islower() and 2 <= len(w) <= 7 for w in given)
        return plain and len(set(given)) == len(given)

    def fields(self, entry: Entry) -> dict[str, str]:
        return {"words": ", ".join(words(entry))}

    def outline(self, entry: Entry) -> str:
        return f"reverse {', '.join(words(entry))}"

    def steps(self, entry: Entry) -> str:
        numbered = [f"{i} {word}" for i, word in enumerate(words(entry), 1)]
        return f"{', '.join(numbered)}; back: {', '.join(reversed(numbered))}"

    def result(self, entry: Entry) -> str:
        return ", ".join(reversed(words(entry)))

    def read(self, text: str) -> str:
        return ", ".join(split_list(text))
