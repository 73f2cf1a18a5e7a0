"""How the parts of a problem are put into one message."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

HEADERS = (
    "Solve these:",
    "Please answer each of these.",
    "Here are {count} tasks:",
    "Answer these {count}:",
    "I have {count} questions.",
    "Can you help me with these {count} things?",
    "Please do the following:",
    "Work on each of these tasks:",
)
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
LINKS = ("Also: ", "And: ", "Besides that: ", "One more: ", "Next question: ")


def compose(rng: Random, requests: Sequence[str]) -> str:
    """One message that asks all of the requests, each a full sentence or a bare formula."""
    header = rng.choice(HEADERS).format(count=NUMBERS[len(requests)])
    layouts = ("numbered", "semicolons", "prose", "joined")
    match rng.choices(layouts, weights=(5, 2, 3, 1 if len(requests) == 2 else 0))[0]:
        case "numbered":
            mark = rng.choice((".", ")"))
            lines = [f"{i}{mark} {request}" for i, request in enumerate(requests, 1)]
            return "\n".join([header, *lines] if rng.random() < 0.7 else lines)
        case "semicolons":
            body = "; ".join(map(clause, requests))
            return f"{header} {body}." if header.endswith(":") else f"{header} Namely: {body}."
        case "joined":
            first, second = requests
            return f"{sentence(first).rstrip('.?')}, and {clause(second)}{ending(second)}"
        case _:
            return prose(rng, requests)


def prose(rng: Random, requests: Sequence[str]) -> str:
    """The requests one after another, some with a link that says they are separate."""
    first, *rest = (sentence(request) for request in requests)
    linked = [rng.choice(LINKS) + text if rng.random() < 0.4 else text for text in rest]
    return " ".join([first, *linked])


def sentence(request: str) -> str:
    """A bare formula becomes a question: `What about 3 + 4?`"""
    return request if request[0].isalpha() else f"What about {request}?"


def ending(request: str) -> str:
    """How a sentence with this last clause ends."""
    return "?" if request.endswith("?") else "."


def clause(request: str) -> str:
    """A sentence as a part of a longer one."""
    text = request.rstrip(".?")
    # `I` stays as it is, and so does a formula.
    return text if text.startswith("I ") else text[:1].lower() + text[1:]
