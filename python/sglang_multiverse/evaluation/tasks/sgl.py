"""What we use of sgl-eval: the only module that imports it, and lazily.

Its prompts and graders are NeMo-Skills', pinned and unchanged. Its runner is not used: ours
resumes, streams, and keeps what the server says of an answer's structure.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import EvaluationError, MissingPackageError
from .base import Grade


class Row(NamedTuple):
    id: str
    problem: str
    answer: str


class SglEval:
    """One of its benchmarks of a category.

    Args:
        name: as `sgl-eval list` shows it.
        prompt: the name of its prompt.

    Raises:
        EvaluationError: it is not installed, or is another than we know.
    """

    def __init__(self, name: str, category: str, prompt: str) -> None:
        self.name = name
        try:
            from sgl_eval.evals import _loader, _math, _multichoice, _prompts
            from sgl_eval.registry import get
            from sgl_eval.types import Example, Sample

            found = get(name).category
            self._prompt: Path = _prompts.resolve_prompt(prompt)
            self._render: Callable[..., str] = _prompts.render_prompt
            self._load = _loader.load_bundled
            self._example, self._sample = Example, Sample
            if category == "math":
                from sgl_eval._vendored.nemo_skills.evaluator.math import MathEvaluator

                self._score = _math.make_score_one_fn(MathEvaluator({}))
            else:
                self._score = _multichoice.make_score_one_fn()
        except ModuleNotFoundError as error:
            raise MissingPackageError(f"task {name}", _needed(error)) from error
        except (ImportError, AttributeError, KeyError) as error:
            raise EvaluationError(
                f"task: {name} does not know this version of sgl-eval (0.1.3 is known): {error}"
            ) from error
        if found != category:
            raise EvaluationError(f"task: sgl-eval's {name} is a {found} benchmark")

    def rows(self) -> list[Row]:
        """Those that come with the package."""
        found: Any = self._load(self.name)(None)
        return [Row(str(one.id), one.inputs["problem"], str(one.target)) for one in found]

    def message(self, problem: str) -> str:
        return self._render(self._prompt, problem=problem)

    def grade(self, problem: str, answer: str, text: str) -> Grade:
        example = self._example(id="", inputs={"problem": problem}, target=answer)
        score, extracted = self._score(example, self._sample(text=text))
        return Grade(score >= 1, extracted)


def _needed(error: ModuleNotFoundError) -> str:
    """By the name under which pip knows it."""
    root = (error.name or "sgl_eval").partition(".")[0]
    return {"sgl_eval": "sgl-eval", "yaml": "pyyaml"}.get(root, root.replace("_", "-"))
