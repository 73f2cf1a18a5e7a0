"""What is drawn for each kind of results."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from .runs import title

Drawing = tuple[str, tuple[float, float], Any]


def of(results: Mapping[str, Any]) -> list[Drawing]:
    """Name, size in inches and filler of each figure."""
    kind = results["kind"]
    if kind == "run":
        return _run(results["series"])
    return []


def _run(series: list[dict[str, Any]]) -> list[Drawing]:
    scored = [one for one in series if one["pass_at_1"]["value"] is not None]
    if not scored:
        return []
    height = 1.2 + 0.5 * len(scored)
    found: list[Drawing] = [("accuracy", (7, height), partial(_accuracy, scored))]
    told = [one for one in scored if one["structure"]]
    if told:
        found.append(("parallelism", (7, 1.2 + 0.5 * len(told)), partial(_parallelism, told)))
    return found


def _accuracy(series: list[dict[str, Any]], figure: Any) -> None:
    axes = figure.subplots()
    for row, one in enumerate(series):
        value, low, high = (100 * one["pass_at_1"][name] for name in ("value", "low", "high"))
        axes.errorbar(
            value, row, xerr=[[value - low], [high - value]], fmt="o", color="black", capsize=3
        )
    _rows(axes, series)
    axes.set(xlabel="pass@1, % (interval over problems)", xlim=(-2, 102))


def _parallelism(series: list[dict[str, Any]], figure: Any) -> None:
    axes = figure.subplots()
    boxes = []
    for one in series:
        found = one["structure"]["degree_of_parallelism"]
        boxes.append(
            {
                "med": found["p50"],
                "q1": found["p25"],
                "q3": found["p75"],
                "whislo": found["p10"],
                "whishi": found["p90"],
                "mean": found["mean"],
            }
        )
    axes.bxp(
        boxes,
        positions=range(len(series)),
        orientation="horizontal",
        showfliers=False,
        showmeans=True,
        meanprops={"marker": "D", "markerfacecolor": "white", "markeredgecolor": "black"},
        medianprops={"color": "black"},
    )
    _rows(axes, series)
    axes.set(xlabel="degree of parallelism: tokens ÷ critical path (10, 25, 50, 75, 90 %; ◇ mean)")


def _rows(axes: Any, series: list[dict[str, Any]]) -> None:
    axes.set_yticks(range(len(series)), [title(one) for one in series])
    axes.set_ylim(len(series) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)
