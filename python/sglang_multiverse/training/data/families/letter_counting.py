"""A letter counted in a word that is spelled with a running tally, since tokens hide letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..gym import Entry
from .base import Family


def word(entry: Entry) -> str:
    return str(entry["metadata"]["span"][0]).lower()


def letter(entry: Entry) -> str:
    return str(entry["metadata"]["target_letter"])


def tally(spelled: str, counted: str) -> str:
    """`s=0 e=1 v=1 e=2 n=2`"""
    marks = [f"{c}={spelled[: i + 1].count(counted)}" for i, c in enumerate(spelled)]
    return " ".join(marks)


class LetterCounting(Family):
    name = "letter_counting"
    options: ClassVar[Mapping[str, Any]] = {"min_words": 1, "max_words": 1}
    templates = (
        'How many times does the letter {letter} appear in the word "{word}"?',
        'Count the letter {letter} in "{word}".',
        'How many {letter}\'s are in "{word}"?',
        'In the word "{word}", how many letters are {letter}?',
        'How often does {letter} occur in "{word}"?',
        'Tell me how many {letter} there are in "{word}".',
    )

    def suits(self, entry: Entry) -> bool:
        text = word(entry)
        return text.isascii() and text.isalpha() and 3 <= len(text) <= 5

    def fields(self, entry: Entry) -> dict[str, str]:
        return {"word": word(entry), "letter": letter(entry)}

    def outline(self, entry: Entry) -> str:
        return f"letter {letter(entry)} in {word(entry)}"

    def steps(self, entry: Entry) -> str:
        return f"{letter(entry)} in {word(entry)}: {tally(word(entry), letter(entry))}"

    def result(self, entry: Entry) -> str:
        return str(entry["answer"])
