"""Two runs on the same problems: is one better, and how sure is that?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from . import facts
from .errors import EvaluationError
from .results import SCHEMA
from .stats import compare, holm
from .store import Asked, Store
from .summary import accuracies

Pairs = list[tuple[float, float]]


class Side(NamedTuple):
    """The tasks of one run: their series' descriptions and their problems, by name."""

    tasks: dict[str, tuple[dict[str, Any], list[Asked]]]
    servers: dict[str, Any]


def read_side(folder: Path) -> Side:
    """The series of each task of a run.

    Raises:
        EvaluationError: there is no run, or a task has several series.
    """
    with Store(folder, read_only=True) as store:
        if store.fact("kind") != "run":
            raise EvaluationError(f"{folder.name}: holds no run to compare")
        found: dict[str, tuple[dict[str, Any], list[Asked]]] = {}
        for number, about in store.all_series():
            name = about["task"]["name"]
            if name in found:
                raise EvaluationError(
                    f"{folder.name}: asks {name} in several ways; compare needs a directory of one"
                )
            found[name] = about, store.asked(number)
        return Side(found, store.fact("servers") or {})


def compare_runs(
    a: Path, b: Path, command: str, *, resamples: int, confidence: float
) -> dict[str, Any]:
    """B against A: per task, per group of its problems, and over all tasks.

    Raises:
        EvaluationError: the runs have no problem in common.
    """
    one, two = read_side(a), read_side(b)
    settings: dict[str, Any] = {"resamples": resamples, "confidence": confidence}
    tasks, strata = [], []
    for name in [name for name in one.tasks if name in two.tasks]:
        (about_a, asked_a), (about_b, asked_b) = one.tasks[name], two.tasks[name]
        pairs, groups, left_out = _pair(asked_a, asked_b)
        if not pairs:
            continue
        strata.append(pairs)
        tasks.append(
            {
                "task": name,
                "models": [about_a["model"], about_b["model"]],
                "samples": [about_a["samples"], about_b["samples"]],
                "left_out": left_out,
                **asdict(compare([pairs], **settings)),
                "groups": {
                    group: {
                        value: asdict(compare([some], **settings))
                        for value, some in sorted(values.items())
                    }
                    for group, values in groups.items()
                },
            }
        )
    if not tasks:
        raise EvaluationError(f"{a.name} and {b.name}: no task with a problem in common")
    for task, p in zip(tasks, holm([task["p"] for task in tasks]), strict=True):
        task["p_holm"] = p
    return {
        "schema": SCHEMA,
        "kind": "compare",
        "commands": [command],
        "machine": facts.describe(),
        "servers": {f"A{role and ' ' + role}": info for role, info in one.servers.items()}
        | {f"B{role and ' ' + role}": info for role, info in two.servers.items()},
        "bootstrap": settings,
        "sides": [a.name, b.name],
        "tasks": tasks,
        "pooled": asdict(compare(strata, **settings)),
        "tokens": [_tokens(side) for side in (one, two)],
    }


def _pair(
    a: list[Asked], b: list[Asked]
) -> tuple[Pairs, dict[str, dict[str, Pairs]], dict[str, int]]:
    """Problems that both answered, also by group, and why others are left out."""
    right_a, right_b = accuracies(a), accuracies(b)
    others = {one.id: one for one in b}
    pairs: Pairs = []
    groups: dict[str, dict[str, Pairs]] = {}
    left_out = {"only_in_a": 0, "only_in_b": 0, "another_problem": 0, "not_answered": 0}
    for one in a:
        other = others.pop(one.id, None)
        if other is None:
            left_out["only_in_a"] += 1
        elif (one.reference, one.messages) != (other.reference, other.messages):
            left_out["another_problem"] += 1
        elif one.id not in right_a or one.id not in right_b:
            left_out["not_answered"] += 1
        else:
            pair = (right_a[one.id], right_b[one.id])
            pairs.append(pair)
            for name, value in one.groups.items():
                groups.setdefault(name, {}).setdefault(value, []).append(pair)
    left_out["only_in_b"] = len(others)
    return pairs, groups, left_out


def _tokens(side: Side) -> Mapping[str, float | None]:
    """Means over the answers of all tasks."""
    samples = [
        sample
        for _, asked in side.tasks.values()
        for one in asked
        for sample in one.samples
        if sample and sample.status == "answered"
    ]
    tokens = [sample.tokens for sample in samples if sample.tokens is not None]
    paths = [s.structure["critical_path_tokens"] for s in samples if s.structure]
    return {
        "tokens": fmean(tokens) if tokens else None,
        "critical_path_tokens": fmean(paths) if paths else None,
    }
