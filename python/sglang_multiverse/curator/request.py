"""One call to the model, and its address by content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..records import digest
from .config import StageSettings
from .prompt import Message


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. Two requests with the same content are the same call.

    Attributes:
        schema: the JSON schema of the answer; its `name` is the stage's.
        round: how often the example was begun before; not sent, but a new
            round is a new call.
    """

    name: str
    settings: StageSettings
    messages: Sequence[Message]
    schema: dict[str, Any]
    round: int = 0

    @property
    def key(self) -> str:
        """The address: prompt, input, model, sampling and schema, but no prices."""
        s = self.settings
        return digest(
            [
                [s.model, s.temperature, s.top_p, s.max_answer_tokens, s.extra_body],
                self.name,
                list(self.messages),
                self.schema,
                self.round,
            ]
        )

    @property
    def estimated_tokens(self) -> int:
        """Of the prompt, for pacing before the endpoint has counted."""
        return sum(estimate(message["content"]) for message in self.messages)


class Reply(NamedTuple):
    """What came back.

    Attributes:
        finish: `stop`, or `length` for an answer that was cut.
    """

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int


def estimate(text: str) -> int:
    """Tokens of a text, by the rule of thumb of 3.5 characters a token in mathematical English."""
    return round(len(text) / 3.5) + 4
