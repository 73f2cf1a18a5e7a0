"""What is measured, by which commands of the evaluation, and how long that takes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from lineage import TwinError

from sglang_multiverse.bundled.manifest import PACKAGE
from sglang_multiverse.settings import check_ranges, setting

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"
LISTS = ("budgets", "batch_sizes")
PROBLEMS = 324
"""Of the task `bundled`: six of each kind, family and number of branches."""
LENGTHS = np.linspace(50, 450, 81)
"""Tokens of answers, about as the model's are spread over these problems."""
PARALLEL = 1.5
"""Tokens ÷ longest path, about as the model's answers have it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command is told. The defaults take 75 minutes on two cores that do nothing else."""

    twin: str = setting(str(HERE / "bundle"), "the twin's bundle, as `bundled.pack` wrote it")
    bundle: str = setting(str(PACKAGE), "the Multiverse model's bundle")
    work: str = setting("build/twin", "directory of the records; the same one goes on")
    out: str = setting(str(RESULTS / "twin"), "directory of the reports that are kept")
    port: int = setting(30000, "of the model's server; the twin has the next", least=1, most=65534)
    threads: int = setting(2, "of each server", least=1)
    # Of no earlier seed: training counts up from 0 and 100,000; answers at 1, 2, 3, 5 and 6 million
    # were looked at, to decide how to train on or to try the evaluation. A seed's problems reach
    # a few hundred further.
    task_seed: int = setting(7_000_000, "of the problems, which must be new to the model", least=0)
    limit: int = setting(0, "only the first problems; 0: all 324", least=0)
    concurrency: int = setting(32, "answers in work at once, where time does not matter", least=1)
    budgets: tuple[int, ...] = setting((64, 96, 128, 192, 256, 384, 512), "ladder of `budget`")
    batch_sizes: tuple[int, ...] = setting((1, 2, 4, 8), "clients at once of `latency`")
    rounds: int = setting(2, "of `latency`", least=1)
    answers: int = setting(54, "of a block of `latency`; 54 have every kind and family", least=1)
    plan: bool = setting(False, "only say what would be done and how long it takes")

    def __post_init__(self) -> None:
        check_ranges(self, TwinError)
        for name in LISTS:
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise TwinError(f"{name}: needs one or more numbers, each at least 1")

    @property
    def problems(self) -> int:
        return self.limit or PROBLEMS


class Step(NamedTuple):
    """One command of the evaluation.

    Attributes:
        name: of its directory.
        arguments: of `python -m sglang_multiverse.evaluation`.
    """

    name: str
    arguments: Sequence[str]


def steps(settings: Settings, model: str, twin: str) -> list[Step]:
    """In their order: answers first, times last.

    Args:
        model, twin: addresses of the endpoints.
    """
    work = Path(settings.work)
    task = ["--task", "bundled", "--task-seed", str(settings.task_seed)]
    several = ["--concurrency", str(settings.concurrency), "--retry-failed"]
    limit = ["--limit", str(settings.limit)] if settings.limit else []
    both = ["--base-url", model, "--baseline-url", twin]

    def run(url: str, *more: str) -> list[str]:
        return ["run", *task, *limit, *several, "--base-url", url, *more]

    def guard(on: bool) -> list[str]:
        return ["--multiverse", json.dumps({"guard": on})]

    def ladder(name: str, values: Sequence[int]) -> list[str]:
        return [name, ",".join(map(str, values))]

    todo = {
        "model": run(model, *guard(True)),
        "unguarded": run(model, *guard(False)),
        "twin": run(twin),
        "compare": ["compare", str(work / "twin"), str(work / "model")],
        "budget": [
            *("budget", *task, *limit, *several, *both),
            *ladder("--budgets", settings.budgets),
        ],
        "latency": [
            *("latency", *task, *both, *ladder("--batch-sizes", settings.batch_sizes)),
            *("--rounds", str(settings.rounds), "--answers", str(settings.answers)),
        ],
    }
    return [Step(name, [*arguments, "--out", str(work / name)]) for name, arguments in todo.items()]


def seconds(settings: Settings) -> dict[str, float]:
    """About how long each step takes, on two cores that do nothing else."""
    answering, plain = (_answering(settings, way) for way in ("parallel", "plain"))
    return {
        "model": answering,
        "unguarded": answering,
        "twin": plain,
        "compare": 0.0,
        "budget": _climbing(settings),
        "latency": _timing(settings),
    }


def rate(way: str, clients: int) -> float:
    """Tokens a second of the package's model, from what was measured on two cores.

    Args:
        way: `parallel` or `plain`.
        clients: interpolated, in the logarithms, between the numbers that were measured.
    """
    loads = json.loads((RESULTS / "replay-bundled.json").read_text())["closed"]
    measured: dict[int, list[float]] = {}
    for load in loads:
        measured.setdefault(load["clients"], []).append(load["ways"][way]["tokens_s"])
    known = sorted(measured)
    rates = [math.log(fmean(measured[count])) for count in known]
    return math.exp(float(np.interp(math.log(clients), np.log(known), rates)))


def _answering(settings: Settings, way: str) -> float:
    return settings.problems * float(LENGTHS.mean()) / rate(way, settings.concurrency)


def _climbing(settings: Settings) -> float:
    """Of the model on both ladders and of the twin on one: below the top, only what was cut."""

    def tokens(widths: float) -> float:
        top, *others = sorted((budget * widths for budget in settings.budgets), reverse=True)
        asked = np.minimum(LENGTHS, top).mean()
        return float(asked + sum(budget * (budget <= LENGTHS).mean() for budget in others))

    parallel = (tokens(1) + tokens(PARALLEL)) / rate("parallel", settings.concurrency)
    return settings.problems * (parallel + tokens(1) / rate("plain", settings.concurrency))


def _timing(settings: Settings) -> float:
    """Three ways, of which one at a time is about as fast as plain text."""
    total = 0.0
    for size in settings.batch_sizes:
        answers = settings.rounds * max(settings.answers, 2 * size) + size
        total += answers * (1 / rate("parallel", size) + 2 / rate("plain", size))
    return total * float(LENGTHS.mean())
