"""Curves over budgets and over batch sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .budgets import NAMES, PANELS, panels

_LINES = ("-", "--", ":")
_MARKS = ("o", "s", "^")
_BANDS: tuple[dict[str, Any], ...] = (
    {"color": "black", "alpha": 0.18, "linewidth": 0},
    {"facecolor": "none", "edgecolor": "0.55", "hatch": "///", "linewidth": 0},
    # Not dots: each is a circle of its own, and the file three times as large.
    {"facecolor": "none", "edgecolor": "0.7", "hatch": "\\\\\\", "linewidth": 0},
)


def budget(results: Mapping[str, Any], figure: Any) -> None:
    """A panel a ladder: pass@1 over the budget, with its band, for both models."""
    found = panels(results)
    axes = figure.subplots(1, max(len(found), 1), sharey=True, squeeze=False)[0]
    for place, (ladder, curves) in enumerate(found.items()):
        for number, curve in enumerate(curves):
            points = [
                (one["about"]["budget"], one["pass_at_1"])
                for one in curve.series
                if one["pass_at_1"]["value"] is not None
            ]
            x = [where for where, _ in points]
            value, low, high = (
                [100 * one[name] for _, one in points] for name in ("value", "low", "high")
            )
            style = {"linestyle": _LINES[number], "marker": _MARKS[number], "color": "black"}
            axes[place].fill_between(x, low, high, **_BANDS[number])
            axes[place].plot(x, value, label=NAMES[curve.role], **style)
        axes[place].set(title=PANELS[ladder].replace("`", ""), xlabel="budget, tokens")
        _budgets(axes[place], sorted({b for curve in curves for b in curve.budgets}))
    axes[0].set(ylabel="pass@1, %", ylim=(-2, 102))
    axes[0].legend()


def latency(found: Mapping[str, Any], figure: Any) -> None:
    """Time of a token, throughput, time to the first token, and the paired ratios."""
    grid = figure.subplots(2, 2)
    panels_ = (
        (grid[0, 0], "seconds_per_token", 1000, "time per token of an answer, ms"),
        (grid[0, 1], "tokens_per_second", 1, "throughput, tokens/s"),
        (grid[1, 0], "ttft", 1, "time to first token, s"),
    )
    for axes, name, scale, label in panels_:
        for number, way in enumerate(found["ways"]):
            some = [
                (size["batch_size"], size["ways"][way][name])
                for size in found["sizes"]
                if way in size["ways"] and size["ways"][way][name]
            ]
            _band(axes, some, number, way, scale)
        axes.set(ylabel=label)
    for number, way in enumerate(found["ways"][1:], 1):
        some = [
            (size["batch_size"], size["ratios"][way]["seconds"])
            for size in found["sizes"]
            if way in size["ratios"] and size["ratios"][way]["seconds"]
        ]
        _band(grid[1, 1], some, number, way, 1)
    grid[1, 1].axhline(1, color="black", linewidth=0.8, linestyle=":")
    grid[1, 1].set(ylabel="ratio of answers' times, paired")
    for axes in grid.flat:
        axes.set(xlabel="batch size, clients")
        _powers(axes, found["batch_sizes"])
        axes.grid(alpha=0.3)
        if axes is not grid[1, 1]:
            axes.set_ylim(bottom=0)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=len(found["ways"]),
        title="median, and quartiles as a band",
    )
    if grid[1, 1].get_legend_handles_labels()[0]:
        grid[1, 1].legend(title=f"÷ {found['ways'][0]}")


def _band(axes: Any, some: list[tuple[int, Any]], number: int, label: str, scale: float) -> None:
    x = [where for where, _ in some]
    low, value, high = ([scale * one[name] for _, one in some] for name in ("p25", "p50", "p75"))
    axes.fill_between(x, low, high, **_BANDS[number])
    style = {"linestyle": _LINES[number], "marker": _MARKS[number], "color": "black"}
    axes.plot(x, value, label=label, **style)


def _budgets(axes: Any, budgets: list[int]) -> None:
    _powers(axes, budgets)
    axes.grid(alpha=0.3)


def _powers(axes: Any, values: list[int]) -> None:
    """A logarithmic axis with a tick at every value."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [str(value) for value in values])
    axes.minorticks_off()
