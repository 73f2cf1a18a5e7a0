"""AIME 2024, 2025 and 2026, with the problems, the prompt and the grader of sgl-eval."""

from __future__ import annotations

from functools import cached_property

from ..errors import EvaluationError
from .base import About, Grade, Problem, Spec, Task
from .sgl import SglEval


def _about(year: int) -> About:
    return About(
        name=f"aime{year % 100}",
        title=f"AIME {year}, integer answers",
        size="30",
        licence="Apache-2.0 (package); problems © MAA",
        source="in sgl-eval",
        needs="sgl-eval",
        max_tokens=32768,
    )


class Aime(Task):
    ABOUT = tuple(_about(year) for year in (2024, 2025, 2026))

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        if spec.file:
            raise EvaluationError(f"task_file: {spec.name} comes with its problems")

    def prepare(self) -> None:
        _ = self._theirs

    @cached_property
    def _theirs(self) -> SglEval:
        return SglEval(self.spec.name, "math", "math")

    def problems(self) -> list[Problem]:
        rows = self._theirs.rows()[: self.spec.limit or None]
        return [
            Problem(
                id=row.id,
                messages=({"role": "user", "content": self._theirs.message(row.problem)},),
                reference=row.answer,
                entry=row,
            )
            for row in rows
        ]

    def grade(self, problem: Problem, text: str) -> Grade:
        right, extracted = self._theirs.grade(problem.entry.problem, problem.reference, text)
        # One vote for 73 and 073.
        number = extracted.strip() if extracted else None
        return Grade(right, str(int(number)) if number and number.isdecimal() else number)
