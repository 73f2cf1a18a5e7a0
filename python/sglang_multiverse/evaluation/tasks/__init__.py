"""The tasks by name. A family's third-party packages are imported when one of it is opened."""

from __future__ import annotations

from ..errors import EvaluationError
from .aime import Aime
from .base import About, Grade, Message, Problem, Spec, Task
from .bundled import Bundled
from .gpqa import Gpqa
from .gym import Gym
from .maths import Maths

__all__ = ["About", "Grade", "Message", "Problem", "Spec", "Task", "about", "known", "open_task"]

_FAMILIES: tuple[type[Task], ...] = (Bundled, Gym, Aime, Maths, Gpqa)


def known() -> list[About]:
    """All tasks, in the order of `list`."""
    return [about for family in _FAMILIES for about in family.ABOUT]


def _find(name: str) -> tuple[type[Task], About]:
    for family in _FAMILIES:
        for about in family.ABOUT:
            # `gym:NAME` stands for all of its family.
            if name == about.name or (":" in about.name and _head(name) == _head(about.name)):
                return family, about
    names = ", ".join(about.name for about in known())
    raise EvaluationError(f"task: {name!r} is not one of {names}")


def _head(name: str) -> str:
    return name.partition(":")[0] if ":" in name else ""


def about(name: str) -> About:
    """What there is to say of a task.

    Raises:
        EvaluationError: there is none of that name.
    """
    return _find(name)[1]


def open_task(spec: Spec) -> Task:
    """The task of a spec.

    Raises:
        EvaluationError: there is none of that name, or what it needs is not there.
    """
    return _find(spec.name)[0](spec)
