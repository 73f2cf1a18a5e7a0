"""The prompts: Markdown files beside this module, joined to what the stage knows.

What all stages have in common comes first, so that an endpoint with a prefix
cache reads question and reasoning once: system prompt, question, numbered
sentences, what earlier stages found, why an earlier attempt failed, and last
the stage's own task.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from .sentences import numbered

Message = dict[str, str]


class Attempt(NamedTuple):
    """How often a stage was begun before, why that failed, and what the reason speaks of."""

    rounds: int = 0
    reason: str = ""
    found: str = ""


FIRST = Attempt()


@cache
def prompt(name: str) -> str:
    """The text of `prompts/{name}.md`."""
    return (files(__package__) / "prompts" / f"{name}.md").read_text(encoding="utf-8")


def messages(
    task: str,
    question: str,
    sentences: Sequence[str],
    found: Sequence[str],
    before: Attempt = FIRST,
) -> list[Message]:
    """The conversation that opens a stage.

    Args:
        found: sections of what earlier stages found, each with its heading.
    """
    sections = [
        f"# Question\n\n{question.strip()}",
        f"# Reasoning\n\n{numbered(sentences)}",
        *found,
        *_failed(before),
        prompt(task).strip(),
    ]
    return [
        {"role": "system", "content": prompt("common").strip()},
        {"role": "user", "content": "\n\n".join(sections)},
    ]


def _failed(before: Attempt) -> list[str]:
    """A section, with what was found in deeper headings than its own."""
    if not before.reason:
        return []
    text = f"# An earlier attempt\n\nIt failed, so take care: {before.reason}"
    if before.found:
        text += f"\n\nIt had found:\n\n{before.found.replace('# ', '## ')}"
    return [text]


def repair(problems: Sequence[str], *, usable: bool = False) -> Message:
    """What is said to the model after an answer that cannot be used, or that could be better."""
    listed = "\n".join(f"- {problem}" for problem in problems[:20])
    more = f"\n- and {len(problems) - 20} more" if len(problems) > 20 else ""
    wrong = "This can be used, but could be better" if usable else "This cannot be used"
    again = "Answer again, with the whole JSON object."
    return {"role": "user", "content": f"{wrong}:\n{listed}{more}\n\n{again}"}
