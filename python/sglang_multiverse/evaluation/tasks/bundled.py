"""Problems of the kinds that the package's own model can do; reasoning-gym's verifiers grade.

They are held out: neither their wording nor any of their parts occurs in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from itertools import count
from typing import get_args

from ...training.data import Conversation, Kind, check, families_of, generate
from ...training.data.answers import read_answers
from ...training.data.generate import PARTS
from ..errors import EvaluationError, MissingPackageError
from .base import About, Grade, Problem, Spec, Task

KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind != "chat")
EACH = 6
"""Problems of each cell (kind, family, number of branches), where there is no limit."""
MAX_TOKENS = 700


def _cells(kinds: Sequence[Kind]) -> list[tuple[Kind, str, int | None]]:
    """Kind, family and, of flat problems, the number of branches."""
    return [
        (kind, family, width)
        for kind in kinds
        for width in (PARTS if kind == "flat" else [None])
        for family in families_of(kind)
    ]


def _about(name: str, title: str, kinds: Sequence[Kind]) -> About:
    return About(
        name=name,
        title=title,
        size=f"{EACH * len(_cells(kinds))}, or --limit",
        licence="Apache-2.0",
        source="generated from --task-seed",
        needs="reasoning-gym",
        max_tokens=MAX_TOKENS,
    )


class Bundled(Task):
    """Dealt in turn from all cells, so that any limit has about as many of each."""

    ABOUT = (
        _about("bundled", "what the package's model can do, all kinds", KINDS),
        *(_about(f"bundled-{kind}", f"the same, {kind} problems only", [kind]) for kind in KINDS),
    )

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        if spec.file:
            raise EvaluationError(f"task_file: {spec.name} generates its problems")
        kind = spec.name.partition("-")[2]
        self.cells = _cells([one for one in KINDS if kind in ("", one)])

    def prepare(self) -> None:
        if find_spec("reasoning_gym") is None:
            raise MissingPackageError(f"task {self.spec.name}", "reasoning-gym")

    def problems(self) -> list[Problem]:
        self.prepare()
        wanted = self.spec.limit or EACH * len(self.cells)
        dealt = [self._deal(*cell) for cell in self.cells]
        found: dict[str, Problem] = {}
        while len(found) < wanted:
            for cell in dealt:
                problem = next(cell)
                found.setdefault(repr(problem.messages), problem)  # small tasks repeat
        return list(found.values())[:wanted]

    def _deal(self, kind: Kind, family: str, width: int | None) -> Iterator[Problem]:
        for seed in count(self.spec.seed):
            made = generate(seed, "held-out", kind, family)
            if width in (None, made.width):
                yield _problem(made)

    def grade(self, problem: Problem, text: str) -> Grade:
        given = read_answers(text)
        extracted = "; ".join(f"{label}) {given[label]}" for label in sorted(given))
        return Grade(check(problem.entry, text), extracted if given else None)


def _problem(made: Conversation) -> Problem:
    return Problem(
        id=f"{made.kind}/{made.family}/{made.seed}",
        messages=made.messages[:-1],
        reference="; ".join(answer.labelled for answer in made.answers),
        groups={
            "independent parts": "yes" if made.branches else "no",
            "kind": made.kind,
            "family": made.family,
            "branches": str(made.width),
        },
        branches=made.branches,
        entry=made,
    )
