"""What is drawn for each kind of results: in black, told apart by marks, dashes and shades."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from . import curves
from .runs import title

Drawing = tuple[str, tuple[float, float], Callable[[Any], None]]


def of(results: Mapping[str, Any]) -> list[Drawing]:
    """Name, size in inches and filler of each figure."""
    match results["kind"]:
        case "run":
            return _run(results["series"])
        case "budget":
            return [("budget", (10, 4.2), partial(curves.budget, results))]
        case "latency":
            return [("latency", (10, 7.5), partial(curves.latency, results["latency"]))]
        case _:
            return [("difference", (7, 1.4 + 0.4 * _count(results)), partial(_forest, results))]


def _run(series: list[dict[str, Any]]) -> list[Drawing]:
    scored = [one for one in series if one["pass_at_1"]["value"] is not None]
    told = [one for one in scored if one["structure"]]
    found: list[Drawing] = []
    for name, some, fill in (("accuracy", scored, _accuracy), ("parallelism", told, _parallelism)):
        if some:
            found.append((name, (7, 1.2 + 0.5 * len(some)), partial(fill, some)))
    return found


def _accuracy(series: list[dict[str, Any]], figure: Any) -> None:
    axes = figure.subplots()
    for row, one in enumerate(series):
        value, low, high = (100 * one["pass_at_1"][name] for name in ("value", "low", "high"))
        error = [[value - low], [high - value]]
        axes.errorbar(value, row, xerr=error, fmt="o", color="black", capsize=3)
    _rows(axes, [title(one) for one in series])
    axes.set(xlabel="pass@1, % (interval over problems)", xlim=(-2, 102))


def _parallelism(series: list[dict[str, Any]], figure: Any) -> None:
    axes = figure.subplots()
    boxes = [
        {
            "med": found["p50"],
            "q1": found["p25"],
            "q3": found["p75"],
            "whislo": found["p10"],
            "whishi": found["p90"],
            "mean": found["mean"],
        }
        for found in (one["structure"]["degree_of_parallelism"] for one in series)
    ]
    axes.bxp(
        boxes,
        positions=range(len(series)),
        orientation="horizontal",
        showfliers=False,
        showmeans=True,
        meanprops={"marker": "D", "markerfacecolor": "white", "markeredgecolor": "black"},
        medianprops={"color": "black"},
    )
    _rows(axes, [title(one) for one in series])
    axes.set(xlabel="tokens ÷ critical path (10, 25, 50, 75 and 90 % of answers; ◇ mean)")


def _lines(results: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Pooled, tasks and their groups, from above."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    if len(results["tasks"]) > 1:
        found.append(("all tasks", results["pooled"]))
    for one in results["tasks"]:
        found.append((one["task"], one))
        for group, values in one["groups"].items():
            found += [(f"{group}: {value}", some) for value, some in values.items()]
    return found


def _count(results: Mapping[str, Any]) -> int:
    return len(_lines(results))


def _forest(results: Mapping[str, Any], figure: Any) -> None:
    axes = figure.subplots()
    lines = _lines(results)
    for row, (_, one) in enumerate(lines):
        value, low, high = (100 * one[name] for name in ("difference", "low", "high"))
        face = "black" if one["shown"] else "white"
        error = [[max(value - low, 0)], [max(high - value, 0)]]
        axes.errorbar(value, row, xerr=error, fmt="s", color="black", mfc=face, capsize=3)
    axes.axvline(0, color="black", linewidth=0.8, linestyle=":")
    _rows(axes, [f"{name} ({one['problems']})" for name, one in lines])
    axes.set(xlabel="B − A, percentage points (filled: a difference is shown)")


def _rows(axes: Any, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
