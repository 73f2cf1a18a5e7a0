"""Numbers and tables as Markdown has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---", *(["---:"] * (len(head) - 1))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def percent(estimate: Mapping[str, Any] | None) -> str:
    """`53.1 (35.2–70.4)`, in per cent; a dash where there is nothing."""
    if estimate is None or estimate["value"] is None:
        return "–"
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f}–{high:.1f})"


def difference(paired: Mapping[str, Any]) -> list[str]:
    """Points with their interval, and p: `+8.0 (+2.0 to +14.0)`, `0.021`."""
    value, low, high = (100 * paired[name] for name in ("difference", "low", "high"))
    return [f"{value:+.1f} ({low:+.1f} to {high:+.1f})", probability(paired["p"])]


def probability(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def middle(spread: Mapping[str, float] | None, digits: int = 2) -> str:
    """Median and quartiles, `0.53 (0.50–0.57)`."""
    if spread is None:
        return "–"
    return f"{spread['p50']:.{digits}f} ({spread['p25']:.{digits}f}–{spread['p75']:.{digits}f})"


def share(found: Mapping[str, Any] | None) -> str:
    """Per cent of the answers counted, without an interval."""
    return f"{100 * found['share']:.1f}" if found else "–"


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
