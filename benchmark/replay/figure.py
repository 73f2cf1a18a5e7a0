"""The figure of one result, for black and white print: lines differ by marker and dash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter
from report import WAYS, speedup

MARKS = "osD^vP"
DASHES = ("-", "--", "-.", ":")


def draw(found: dict[str, Any], path: Path) -> None:
    """`path`.svg and `path`.png."""
    style = {"font.size": 9, "svg.hashsalt": "replay", "svg.fonttype": "none"}
    with mpl.rc_context(style):
        shown = 2 if found["open"] else 1
        figure, axes = plt.subplots(1, shown, figsize=(5.2 * shown, 3.8), squeeze=False)
        _speedups(axes[0][0], found["closed"])
        if found["open"]:
            _latencies(axes[0][1], found["open"])
        figure.tight_layout()
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), dpi=150, metadata={"Software": None})
        plt.close(figure)


def _speedups(axes: Axes, closed: list[dict[str, Any]]) -> None:
    """Over plain text, against the number of clients; what is ideal as a thin line of its own."""
    names = list(dict.fromkeys(case["structure"] for case in closed))
    every = sorted({case["clients"] for case in closed})
    for number, name in enumerate(names):
        cases = sorted((c for c in closed if c["structure"] == name), key=lambda c: c["clients"])
        points = [(c["clients"], s) for c in cases if (s := speedup(c, "parallel")) is not None]
        if not points:
            continue
        degree = cases[0]["degree_of_parallelism"]
        grey = str(0.6 * number / max(len(names), 1))
        mark, dash = MARKS[number % len(MARKS)], DASHES[number % len(DASHES)]
        label = f"{degree:.2f}: {name}"
        axes.plot(*zip(*points, strict=True), dash, color=grey, marker=mark, label=label)
        axes.plot(every, [degree] * len(every), ":", color=grey, linewidth=0.8)
        axes.plot(every[-1], degree, marker=mark, color=grey, fillstyle="none", markersize=4)
    axes.axhline(1, color="black", linewidth=0.6)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(every))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xlabel("answers at a time")
    axes.set_ylabel("answers/s in parallel ÷ plain")
    axes.set_ylim(bottom=0)
    ideal = Line2D([], [], linestyle=":", color="black", linewidth=0.8, label="ideal")
    handles = [*axes.get_legend_handles_labels()[0], ideal]
    axes.legend(handles=handles, title="degree of parallelism", fontsize=7, title_fontsize=8)


def _latencies(axes: Axes, loads: list[dict[str, Any]]) -> None:
    """Of an answer, median and 99th percentile, against the rate of arrivals."""
    shares = [100 * load["share"] for load in loads]
    for number, way in enumerate(loads[0]["ways"]):
        grey, mark = str(0.2 * number), MARKS[number % len(MARKS)]
        for share, dash, fill in (("p50", "-", "full"), ("p99", ":", "none")):
            values = [load["ways"][way]["latency_s"][share] for load in loads]
            label = WAYS[way] if share == "p50" else None
            axes.plot(shares, values, dash, color=grey, marker=mark, fillstyle=fill, label=label)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.set_xlim(0, 100)
    axes.set_xlabel("arrivals, % of what plain text can do")
    axes.set_ylabel("latency of an answer, s (hollow: p99)")
    axes.legend(fontsize=7)
