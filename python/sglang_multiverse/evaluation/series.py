"""A series: one task asked of one model in one way. What a record is found again by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..records import digest
from .config import AskConfig
from .tasks import Message, Problem, Spec

Ladder = Literal["", "total", "critical"]


@dataclass(frozen=True, slots=True)
class Series:
    """What every request of it has in common.

    Attributes:
        role: `parallel` or `baseline` where one command asks two endpoints, else empty.
        ladder, budget: which tokens are bounded, and how many; empty and 0 for no budget.
        max_tokens: of an answer, budget or not.
    """

    role: str
    model: str
    task: Spec
    temperature: float
    top_p: float
    seed: int
    max_tokens: int
    system: str
    suffix: str
    multiverse: Mapping[str, Any]
    extra: Mapping[str, Any]
    ladder: Ladder = ""
    budget: int = 0

    @property
    def key(self) -> str:
        """The address of the series: what is asked, but not of how many problems."""
        return digest(asdict(replace(self, task=replace(self.task, limit=0))))

    def messages(self, problem: Problem) -> list[Message]:
        """The problem's, with the user's additions."""
        *before, last = problem.messages
        if self.suffix:
            last = {**last, "content": last["content"] + self.suffix}
        head = [{"role": "system", "content": self.system}] if self.system else []
        return [*head, *before, last]

    def body(self, problem: Problem, index: int) -> dict[str, Any]:
        """The request for the answer of that number to a problem."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": self.messages(problem),
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
        }
        if self.temperature > 0:
            body["seed"] = self.seed + index
        if self.multiverse:
            body["multiverse"] = dict(self.multiverse)
        return {**body, **self.extra}

    def sample_key(self, problem: Problem, index: int) -> str:
        """The address of an answer: everything that is sent, whom to, what for, and its number."""
        return digest([self.role, self.body(problem, index), problem.id, index])

    def bounded(self, ladder: Ladder, budget: int) -> Series:
        """The same with a budget."""
        if ladder == "total":
            return replace(self, ladder=ladder, budget=budget, max_tokens=budget)
        options = {**self.multiverse, "max_critical_tokens": budget}
        return replace(self, ladder=ladder, budget=budget, multiverse=options)


def make_series(
    config: AskConfig, task: Spec, model: str, max_tokens: int, *, role: str = ""
) -> Series:
    """The series of a task as the settings have it; a baseline gets no Multiverse options."""
    return Series(
        role=role,
        model=model,
        task=task,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
        max_tokens=config.max_tokens or max_tokens,
        system=config.system,
        suffix=config.suffix,
        multiverse={} if role == "baseline" else config.multiverse_options,
        extra=config.extra_fields,
    )
