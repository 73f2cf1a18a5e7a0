"""What a task is: problems, and a third party's verdict on answers to them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class About:
    """What `list` says of a task.

    Attributes:
        size: of the whole task, in problems.
        needs: the package that grades, and the loader where it is another.
        max_tokens: of an answer, where the user does not say.
    """

    name: str
    title: str
    size: str
    licence: str
    source: str
    needs: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Spec:
    """Which problems: small, and the same in another process.

    Attributes:
        file: a local file with the task's rows; empty for the task's own source.
        seed: of generated problems.
        limit: only the first so many problems; 0 for all.
    """

    name: str
    file: str = ""
    seed: int = 0
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    Attributes:
        id: unique within its task.
        messages: what is asked, as chat messages.
        reference: the right answer, to show.
        groups: what to break the results down by, such as `{"kind": "flat"}`.
        branches: of each block that the problem asks for, in the order of `structure.walk`; empty
            where it asks for none, `None` where nobody says.
        entry: what the grader needs.
    """

    id: str
    messages: Sequence[Message]
    reference: str
    groups: Mapping[str, str] = field(default_factory=dict)
    branches: tuple[int, ...] | None = None
    entry: Any = None


class Grade(NamedTuple):
    """A verdict.

    Attributes:
        extracted: the final answer that was found, in a form in which equal answers are mostly
            equal; `None` where there is none, which is a format error.
    """

    right: bool
    extracted: str | None


class Task(ABC):
    """Problems with a grader. One is opened in each process that grades."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    ABOUT: ClassVar[Sequence[About]]
    """The tasks of this family."""

    @abstractmethod
    def problems(self) -> Sequence[Problem]:
        """The problems of the spec, always the same and in the same order.

        Raises:
            EvaluationError: they cannot be had; the message says what to do.
        """

    @abstractmethod
    def prepare(self) -> None:
        """Load what grading needs.

        Raises:
            EvaluationError: it is not there.
        """

    @abstractmethod
    def grade(self, problem: Problem, text: str) -> Grade:
        """The verdict on an answer, whatever text that is."""
