"""The report of `budget`: accuracy at each budget, both models side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .cells import difference, number, percent, table


class Curve(NamedTuple):
    """The series of one model on one ladder, from the smallest budget up."""

    role: str
    series: list[dict[str, Any]]

    @property
    def budgets(self) -> list[int]:
        return [one["about"]["budget"] for one in self.series]

    def at(self, budget: int) -> dict[str, Any] | None:
        return next((one for one in self.series if one["about"]["budget"] == budget), None)


PANELS = {
    "total": "same number of tokens in all (`max_tokens`)",
    "critical": "same longest path (`max_critical_tokens`)",
}
NAMES = {"parallel": "parallel", "baseline": "sequential baseline"}


def panels(results: Mapping[str, Any]) -> dict[str, list[Curve]]:
    """The curves of each ladder. The baseline's is in both: its longest path is all its tokens."""
    found: dict[str, list[Curve]] = {}
    for ladder in PANELS:
        curves = []
        for role in NAMES:
            wanted = "total" if role == "baseline" else ladder
            some = [
                one
                for one in results["series"]
                if one["about"]["role"] == role and one["about"]["ladder"] == wanted
            ]
            if some:
                curves.append(Curve(role, sorted(some, key=lambda one: one["about"]["budget"])))
        if any(curve.role == "parallel" for curve in curves):
            found[ladder] = curves
    return found


def body(results: Mapping[str, Any]) -> list[str]:
    about = results["series"][0]["about"] if results["series"] else {"task": {"name": "?"}}
    found = [f"# Accuracy under budgets: {about['task']['name']}"]
    for ladder, curves in panels(results).items():
        paired = {one["budget"]: one for one in results["paired"] if one["ladder"] == ladder}
        found += [f"## At the {PANELS[ladder]}", _table(curves, paired)]
    found.append(
        "The difference is paired by problem, with its bootstrap interval and the exact test's p. "
        "*Cut* answers were ended by the budget; a cut answer without a final answer is wrong. "
        "*Tokens* and *path* are means of all tokens and of the longest path, of all answers. "
        "An answer that ended by itself below a budget is taken over by that budget from the next "
        "larger one, unasked, since the model does not know its budget; neighbouring points share "
        "those answers."
    )
    return found + _warnings(results)


def _table(curves: list[Curve], paired: Mapping[int, Mapping[str, Any]]) -> str:
    head = ["budget, tokens"]
    for curve in curves:
        name = NAMES[curve.role]
        head += [f"{name}: pass@1, %", "answers", "cut", "tokens", "path"]
    if paired:
        head += ["parallel − baseline, points", "p"]
    budgets = sorted({budget for curve in curves for budget in curve.budgets})
    rows = []
    for budget in budgets:
        row = [str(budget)]
        for curve in curves:
            row += _cells(curve.at(budget))
        if paired:
            row += difference(paired[budget]) if budget in paired else ["–", "–"]
        rows.append(row)
    return table(head, rows)


def _cells(one: Mapping[str, Any] | None) -> list[str]:
    if one is None:
        return ["–"] * 5
    tokens, structure = one["tokens"], one["structure"]
    mean = tokens["mean"] if tokens else None
    path = structure["critical_path_tokens"]["mean"] if structure else mean
    answers = f"{one['answered']} of {one['samples']}"
    return [percent(one["pass_at_1"]), answers, str(one["cut"]), number(mean, 0), number(path, 0)]


def _warnings(results: Mapping[str, Any]) -> list[str]:
    found = []
    for one in results["series"]:
        lacking = one["failed"] + one["missing"]
        if lacking:
            about = one["about"]
            found.append(
                f"**{NAMES[about['role']]}, {about['ladder']} {about['budget']}: {lacking} of "
                f"{one['samples']} answers are not there; they are in no accuracy.**"
            )
    return found
