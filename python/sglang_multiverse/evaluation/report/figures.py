"""Figures from results.json, readable without colour. matplotlib is imported here only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import MissingPackageError

Fill = Callable[[Any], None]
"""Draws onto a figure."""


def require() -> None:
    """Fail before a run rather than after it.

    Raises:
        MissingPackageError
    """
    if find_spec("matplotlib") is None:
        raise MissingPackageError("a report", "matplotlib")


def draw(results: Mapping[str, Any], out: Path) -> list[Path]:
    """Write the figures of a kind of results; each as SVG and PNG."""
    require()
    from . import drawings

    written = []
    for name, size, fill in drawings.of(results):
        written += _save(out / name, size, fill)
    return written


def _save(stem: Path, size: tuple[float, float], fill: Fill) -> list[Path]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # The same results give the same files: no date, and no random ids. Text stays text, which is
    # smaller, and can be searched.
    with rc_context({"svg.hashsalt": "evaluation", "svg.fonttype": "none"}):
        figure = Figure(figsize=size, layout="constrained")
        fill(figure)
        svg, png = stem.with_suffix(".svg"), stem.with_suffix(".png")
        figure.savefig(svg, metadata={"Date": None})
        figure.savefig(png, dpi=150, metadata={"Software": None})
    return [svg, png]
