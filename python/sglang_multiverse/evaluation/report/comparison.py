"""The report of `compare`: what is shown, and what is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .cells import difference, number, probability, table

NOTHING = "no difference shown"
SIDES = ("A", "B")


def body(results: Mapping[str, Any]) -> list[str]:
    a, b = results["sides"]
    rows = [_row(one["task"], one, one["p_holm"]) for one in results["tasks"]]
    if len(results["tasks"]) > 1:
        rows.append(_row("all tasks", results["pooled"]))
    head = ["", "problems", "A, %", "B, %", "B − A, points", "B better", "B worse", "p", "p (Holm)"]
    found = [
        f"# {b} against {a}",
        f"A is `{a}`, B is `{b}`. **{verdict(results)}**",
        table([*head, "verdict"], rows),
        "Paired by problem; with several answers to each, by their share of right ones. In "
        "brackets the paired bootstrap interval over problems (tasks keep their sizes); p is the "
        "exact two-sided test on the problems where one side is better, which with one answer each "
        "is McNemar's; Holm's adjusts it for the number of tasks. A difference is said to be shown "
        "only where the interval and p agree.",
        _tokens(results),
    ]
    for one in results["tasks"]:
        for group, values in one["groups"].items():
            rows = [_row(value or "–", some) for value, some in values.items()]
            found += [f"## {one['task']} by {group}", table([*head, "verdict"], rows)]
        if any(one["left_out"].values()):
            said = ", ".join(
                f"{count} {why.replace('_', ' ')}"
                for why, count in one["left_out"].items()
                if count
            )
            found.append(f"**{one['task']}: problems left out: {said}.**")
    if any(one["groups"] for one in results["tasks"]):
        found.append("The groups' p are not adjusted: with many groups, some are small by chance.")
    return found


def verdict(results: Mapping[str, Any], names: Sequence[str] = SIDES) -> str:
    """One sentence for the whole, from the pooled comparison."""
    one = results["pooled"]
    numbers = (
        f"{100 * one['difference']:+.1f} points ({100 * one['low']:+.1f} to "
        f"{100 * one['high']:+.1f}) over {one['problems']} problems, p = {probability(one['p'])}"
    )
    said = better(one, names)
    return f"{said[0].upper()}{said[1:]}: {numbers}."


def better(one: Mapping[str, Any], names: Sequence[str] = SIDES) -> str:
    """Which side is, by its name, or that this is not shown."""
    return {1: f"{names[1]} is better", -1: f"{names[0]} is better", 0: NOTHING}[one["shown"]]


def _row(name: str, one: Mapping[str, Any], adjusted: float | None = None) -> list[str]:
    points, p = difference(one)
    return [
        name,
        str(one["problems"]),
        *(f"{100 * one[side]:.1f}" for side in ("a", "b")),
        points,
        *(str(one[side]) for side in ("better", "worse")),
        p,
        "–" if adjusted is None else probability(adjusted),
        better(one),
    ]


def _tokens(results: Mapping[str, Any]) -> str:
    rows = [
        [side, number(told["tokens"], 0), number(told["critical_path_tokens"], 0)]
        for side, told in zip(SIDES, results["tokens"], strict=True)
    ]
    return table(["mean of an answer", "tokens", "critical path"], rows)
