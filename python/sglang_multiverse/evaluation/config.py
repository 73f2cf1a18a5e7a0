"""Everything a command is told, in one place: its flags are read off these classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

from ..settings import check_address, check_ranges, setting
from .errors import EvaluationError

LISTS = ("task", "budgets", "batch_sizes")
"""The settings that take several values, also with commas."""


@dataclass(frozen=True, kw_only=True)
class _Checked:
    """Settings whose numbers are in their ranges."""

    def __post_init__(self) -> None:
        check_ranges(self, EvaluationError)


@dataclass(frozen=True, kw_only=True)
class StatisticsConfig(_Checked):
    """How sure is sure: the settings of `compare`, and of all that tell accuracies."""

    resamples: int = setting(10_000, "of the bootstrap", least=100, most=1_000_000)
    confidence: float = setting(0.95, "of the intervals", least=0.5, most=0.999)


@dataclass(frozen=True, kw_only=True)
class AskConfig(_Checked):
    """Who is asked what, and how: common to all commands that ask."""

    base_url: str = setting("http://127.0.0.1:30000/v1", "an OpenAI-compatible endpoint")
    model: str = setting("", "the model asked; empty: the first that the endpoint lists")
    api_key_env: str = setting("OPENAI_API_KEY", "environment variable that holds the key")

    task: tuple[str, ...] = setting(("bundled",), "a task of `list`")
    task_file: str = setting("", "a local file with the rows of the task; see docs/evaluation.md")
    task_seed: int = setting(6_000_000, "of problems that are generated", least=0)
    limit: int = setting(0, "only the first problems of each task; 0: all", least=0)
    system: str = setting("", "a system message before every problem")
    suffix: str = setting("", "text after every problem")

    temperature: float = setting(0.0, "of the sampling", least=0, most=2)
    top_p: float = setting(1.0, "of the sampling", least=0, most=1)
    seed: int = setting(0, "of the first answer; each further one adds 1", least=0)
    max_tokens: int = setting(0, "most tokens of an answer; 0: the task's own number", least=0)
    multiverse: str = setting(
        "", "a JSON object for the request's `multiverse` field; empty: the field is not sent"
    )
    extra_body: str = setting("", "a JSON object of further fields of every request")

    timeout: float = setting(600.0, "seconds of silence until a call is tried again", least=0.1)
    retries: int = setting(
        4, "further tries after 429, 5xx, silence and broken streams", least=0, most=50
    )
    backoff: float = setting(1.0, "seconds before the second try; doubles up to 30", least=0)
    grade_timeout: float = setting(60.0, "seconds for grading one answer", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_address("base_url", self.base_url, EvaluationError)
        if not self.task or not all(self.task):
            raise EvaluationError("task: empty; `list` shows the tasks")
        if self.task_file and len(self.task) > 1:
            raise EvaluationError("task_file: only with one task")
        json_object("multiverse", self.multiverse)
        json_object("extra_body", self.extra_body)

    @property
    def multiverse_options(self) -> dict[str, Any]:
        return json_object("multiverse", self.multiverse)

    @property
    def extra_fields(self) -> dict[str, Any]:
        return json_object("extra_body", self.extra_body)


@dataclass(frozen=True, kw_only=True)
class RunConfig(AskConfig, StatisticsConfig):
    """The settings of `run`, which takes several tasks."""

    samples: int = setting(1, "answers to each problem", least=1, most=4096)
    concurrency: int = setting(16, "answers in work at once", least=1, most=4096)
    retry_failed: bool = setting(False, "ask once more for answers that failed")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples > 1 and self.temperature == 0:
            raise EvaluationError(
                "samples: greedy answers are all the same; give --temperature above 0, or 1 sample"
            )


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(AskConfig):
    """What the commands have in common that take one task and can ask a sequential model, too."""

    baseline_url: str = setting("", "endpoint of the sequential baseline; empty: none")
    baseline_model: str = setting("", "its model; empty: the first that the endpoint lists")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline_url:
            check_address("baseline_url", self.baseline_url, EvaluationError)
        elif self.baseline_model:
            raise EvaluationError("baseline_model: needs baseline_url")
        if len(self.task) > 1:
            raise EvaluationError("task: this command takes one")


@dataclass(frozen=True, kw_only=True)
class BudgetConfig(BaselineConfig, RunConfig):
    """The settings of `budget`. `max_tokens` bounds the answers of the longest-path ladder."""

    budgets: tuple[int, ...] = setting((), "the ladder, in tokens; repeatable, or with commas")
    ladder: Literal["both", "total", "critical"] = setting(
        "both", "bound all tokens (max_tokens), the longest path (max_critical_tokens), or each"
    )
    reuse: bool = setting(
        True, "take an answer that ended below a budget from the next larger one, unasked"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ladder("budgets", self.budgets)


@dataclass(frozen=True, kw_only=True)
class LatencyConfig(BaselineConfig):
    """The settings of `latency`."""

    batch_sizes: tuple[int, ...] = setting(
        (1, 2, 4, 8, 16, 32, 64, 128), "clients at once, one after the other; repeatable, or commas"
    )
    rounds: int = setting(3, "blocks of each way at each batch size", least=1)
    answers: int = setting(16, "answers of a block; but two of each client or more", least=1)
    one_at_a_time: bool = setting(
        True, "also ask with `max_parallel_branches: 1`, which an endpoint must know"
    )
    flush: bool = setting(True, "empty the server's prefix cache before each measurement")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ladder("batch_sizes", self.batch_sizes)


def check_ladder(name: str, values: tuple[int, ...]) -> None:
    """Numbers to go through one after the other.

    Raises:
        EvaluationError: there is none, one is below 1, or one stands there twice.
    """
    if not values or min(values) < 1:
        raise EvaluationError(f"{name}: needs one or more numbers, each at least 1")
    if len(set(values)) < len(values):
        raise EvaluationError(f"{name}: a number stands there twice")


def json_object(name: str, text: str) -> dict[str, Any]:
    """A setting's JSON object; an empty text is an empty one.

    Raises:
        EvaluationError
    """
    try:
        found = json.loads(text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise EvaluationError(f"{name}: {text!r} is no JSON object")
    return found
