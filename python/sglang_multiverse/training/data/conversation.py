"""What the generator makes: one conversation and the answers that verify its last turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Kind = Literal["flat", "nested", "sequential", "single", "chat"]
Split = Literal["train", "held-out"]

KINDS: tuple[Kind, ...] = get_args(Kind)
SPLITS: tuple[Split, ...] = get_args(Split)

MIXED = "mixed"
CHAT = "chat"


@dataclass(frozen=True, slots=True)
class Answer:
    """The right answer to one part.

    Attributes:
        label: `2` or `1.2` in a problem of several parts; empty where there is only one.
        family: the reasoning-gym dataset whose scorer decides.
        text: as the solution writes it.
        entry: the reasoning-gym entry that the scorer compares with.
    """

    label: str
    family: str
    text: str
    entry: Mapping[str, Any] = field(repr=False)

    @property
    def labelled(self) -> str:
        """`2) 3, 5, 9`"""
        return f"{self.label}) {self.text}" if self.label else self.text


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange before the last one."""

    user: str
    assistant: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation that ends with the turn of interest.

    Attributes:
        family: that of every part, `mixed` where they differ, or `chat`.
        kind: flat and nested problems open a parallel block, the others none.
        seed, split: `generate` gives this conversation again for them and the kind and
            family that it was asked for.
        history: earlier exchanges, oldest first.
        prompt: the user's last message.
        solution: the assistant's answer to it, in the default dialect.
        branches: branches of each block of the solution, in the order of `structure.walk`.
        answers: what `check` verifies; empty for chat.
    """

    family: str
    kind: Kind
    seed: int
    split: Split
    prompt: str
    solution: str
    branches: tuple[int, ...] = ()
    answers: tuple[Answer, ...] = ()
    history: tuple[Turn, ...] = ()

    @property
    def width(self) -> int:
        """Branches of the outer block; 0 without one."""
        return self.branches[0] if self.branches else 0

    @property
    def messages(self) -> list[dict[str, str]]:
        """The whole conversation as chat messages."""
        turns = [*self.history, Turn(self.prompt, self.solution)]
        return [
            {"role": role, "content": content}
            for turn in turns
            for role, content in (("user", turn.user), ("assistant", turn.assistant))
        ]

    @property
    def record(self) -> dict[str, Any]:
        """The line of a JSONL file."""
        return {
            "messages": self.messages,
            "family": self.family,
            "kind": self.kind,
            "seed": self.seed,
            "split": self.split,
            "branches": list(self.branches),
            "answers": [
                {"label": a.label, "family": a.family, "text": a.text} for a in self.answers
            ],
        }
