"""GPQA-Diamond, with the prompt and the grader of sgl-eval."""

from __future__ import annotations

from functools import cached_property
from random import Random

from . import rows
from .base import About, Grade, Problem, Task
from .sgl import SglEval

_HUB = ("Idavidrein/gpqa", "gpqa_diamond")
_WRONG = tuple(f"Incorrect Answer {number}" for number in (1, 2, 3))
_COLUMNS = ("Question", "Correct Answer", *_WRONG)


class Gpqa(Task):
    """Rows have the columns of the data set. The order of the choices comes from `--task-seed`."""

    ABOUT = (
        About(
            name="gpqa",
            title="GPQA-Diamond, four choices",
            size="198",
            licence="CC-BY-4.0; do not publish the questions",
            source=f"{_HUB[0]} by datasets (gated), or --task-file",
            needs="sgl-eval, datasets",
            max_tokens=32768,
        ),
    )

    def prepare(self) -> None:
        _ = self._theirs

    @cached_property
    def _theirs(self) -> SglEval:
        return SglEval("gpqa", "multichoice", "mcq-4choices")

    def problems(self) -> list[Problem]:
        spec = self.spec
        found = rows.load(spec.file, _HUB, "train", _COLUMNS, spec.name)
        return [self._problem(n, row) for n, row in enumerate(found[: spec.limit or None])]

    def _problem(self, number: int, row: rows.Row) -> Problem:
        name = str(row.get("Record ID") or number)
        choices = [row["Correct Answer"].strip(), *(row[name].strip() for name in _WRONG)]
        order = Random(f"{self.spec.seed}/{name}").sample(range(4), 4)
        listed = "\n".join(f"{'ABCD'[place]}) {choices[n]}" for place, n in enumerate(order))
        text = f"{row['Question'].strip()}\n\n{listed}"
        domain = row.get("High-level domain")
        return Problem(
            id=name,
            messages=({"role": "user", "content": self._theirs.message(text)},),
            reference="ABCD"[order.index(0)],
            groups={"domain": str(domain)} if domain else {},
            entry=text,
        )

    def grade(self, problem: Problem, text: str) -> Grade:
        return self._theirs.grade(problem.entry, problem.reference, text)
