"""Free-form mathematics, graded by math-verify: MATH500, or rows of one's own."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from ..errors import EvaluationError, MissingPackageError
from . import rows
from .base import About, Grade, Problem, Spec, Task

_HUB = ("HuggingFaceH4/MATH-500",)
_PROMPT = "Please reason step by step, and put your final answer within \\boxed{{}}.\n\n{problem}"


class Maths(Task):
    """Rows have `problem` and `answer`, and may have `unique_id`, `subject` and `level`."""

    ABOUT = (
        About(
            name="math500",
            title="500 problems of MATH's test split",
            size="500",
            licence="MIT",
            source=f"{_HUB[0]} by datasets, or --task-file",
            needs="math-verify, datasets",
            max_tokens=32768,
        ),
        About(
            name="maths",
            title="problems of one's own",
            size="the file's",
            licence="the file's",
            source="--task-file",
            needs="math-verify",
            max_tokens=32768,
        ),
    )

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        if spec.name == "maths" and not spec.file:
            raise EvaluationError("task_file: maths needs one; docs/evaluation.md has its form")

    def problems(self) -> list[Problem]:
        spec = self.spec
        found = rows.load(spec.file, _HUB, "test", ("problem", "answer"), spec.name)
        return [
            Problem(
                id=str(row.get("unique_id", number)),
                messages=(
                    {"role": "user", "content": _PROMPT.format(problem=row["problem"].strip())},
                ),
                reference=row["answer"],
                groups={n: str(row[n]) for n in ("subject", "level") if row.get(n) is not None},
            )
            for number, row in enumerate(found[: spec.limit or None])
        ]

    def prepare(self) -> None:
        _ = self._verifier

    @cached_property
    def _verifier(self) -> Any:
        try:
            import math_verify
        except ModuleNotFoundError as error:
            raise MissingPackageError(f"task {self.spec.name}", "math-verify") from error
        return math_verify

    def grade(self, problem: Problem, text: str) -> Grade:
        theirs = self._verifier
        latex, numbers = theirs.LatexExtractionConfig, theirs.ExprExtractionConfig
        reference = problem.reference
        formula = reference if "$" in reference else f"${reference}$"
        wanted = theirs.parse(formula, [latex(), numbers()])
        # What is boxed comes first; then other formulas, then plain numbers.
        given = theirs.parse(text, [latex(boxed_match_priority=0), numbers()])
        if not given:
            return Grade(False, None)
        return Grade(bool(theirs.verify(wanted, given)), str(given[0]))
