"""The answer line that ends a solution, and whether a text's answer line is right.

In a solution of several parts it stands in the outer block's conclusion, with only tags after it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .conversation import Answer, Conversation
from .families import FAMILIES
from .twin import sequential_text

PREFIX = "Answer:"
_PART = re.compile(r"\s*(\d+(?:\.\d+)*)\)\s*(.*\S)\s*")


def labelled(answers: Sequence[Answer]) -> str:
    """`1) 12; 2) 3, 5, 9`"""
    return "; ".join(answer.labelled for answer in answers)


def answer_line(answers: Sequence[Answer]) -> str:
    """`Answer: 1) 12; 2) 3, 5, 9`"""
    return f"{PREFIX} {labelled(answers)}"


def read_answers(text: str) -> dict[str, str]:
    """The parts of the last line of words by label; one without labels is under the empty label.

    Empty when that line is no answer or names a part twice.
    """
    lines = sequential_text(text).strip().splitlines()
    if not lines or not lines[-1].startswith(PREFIX):
        return {}
    found: dict[str, str] = {}
    parts = lines[-1].removeprefix(PREFIX).split(";")
    for part in parts:
        match = _PART.fullmatch(part)
        label, value = (match[1], match[2]) if match else ("", part.strip())
        if label in found:
            return {}
        found[label] = value
    return found


def score_parts(problem: Conversation, text: str) -> list[bool]:
    """Whether each part of the problem is answered rightly, in the order of `problem.answers`."""
    given = read_answers(text)
    return [
        answer.label in given and FAMILIES[answer.family].right(given[answer.label], answer.entry)
        for answer in problem.answers
    ]


def check(problem: Conversation, text: str) -> bool:
    """Whether the text's last line of words answers every part rightly and no other part.

    Chat has no answers to verify: any text that is not empty passes.
    """
    if not problem.answers:
        return bool(text.strip())
    return len(read_answers(text)) == len(problem.answers) and all(score_parts(problem, text))
