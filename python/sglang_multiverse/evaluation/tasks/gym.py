"""Any data set of reasoning-gym, with its own prompt for the answer's form and its own verifier."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from ..errors import EvaluationError, MissingPackageError
from .base import About, Grade, Problem, Spec, Task

SIZE = 100


class Gym(Task):
    """`gym:NAME`, such as `gym:chain_sum`. Right is what the verifier gives its full score."""

    ABOUT = (
        About(
            name="gym:NAME",
            title="any data set of reasoning-gym",
            size=f"{SIZE}, or --limit",
            licence="Apache-2.0",
            source="generated from --task-seed",
            needs="reasoning-gym",
            max_tokens=4096,
        ),
    )

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        if spec.file:
            raise EvaluationError(f"task_file: {spec.name} generates its problems")

    @cached_property
    def _set(self) -> Any:
        name = self.spec.name.partition(":")[2]
        try:
            import reasoning_gym
            from reasoning_gym.factory import DATASETS
        except ModuleNotFoundError as error:
            if error.name != "reasoning_gym":
                raise
            raise MissingPackageError(f"task {self.spec.name}", "reasoning-gym") from error
        if name not in DATASETS:
            names = ", ".join(sorted(DATASETS))
            raise EvaluationError(f"task: reasoning-gym has no {name!r}; there are: {names}")
        return reasoning_gym.create_dataset(name, seed=self.spec.seed, size=self.spec.limit or SIZE)

    def prepare(self) -> None:
        _ = self._set

    def problems(self) -> list[Problem]:
        entries = list(self._set)  # says so where reasoning-gym is missing
        from reasoning_gym.utils import SYSTEM_PROMPTS

        system = {"role": "system", "content": SYSTEM_PROMPTS["default"]}
        return [
            Problem(
                id=str(number),
                messages=(system, {"role": "user", "content": entry["question"]}),
                reference=str(entry["answer"]),
                entry=entry,
            )
            for number, entry in enumerate(entries)
        ]

    def grade(self, problem: Problem, text: str) -> Grade:
        from reasoning_gym.utils import extract_answer

        answer = extract_answer(text)
        if answer is None:
            return Grade(False, None)
        return Grade(self._set.score_answer(answer, problem.entry) >= 1, answer.strip())
