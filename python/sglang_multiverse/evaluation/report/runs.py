"""The report of `run`: one line a task, then what the lines leave out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .cells import middle, number, percent, share, table


def body(results: Mapping[str, Any]) -> list[str]:
    series = results["series"]
    found = ["# Evaluation", _accuracy(series)]
    found += _warnings(series)
    if ranked := [one for one in series if one["pass_at_k"]]:
        found += ["## At least one of k right", _ranks(ranked)]
    found += ["## Parallelism", _parallelism(series), "## Time", _time(series)]
    for one in series:
        for name, groups in one["groups"].items():
            found += [f"## {title(one)} by {name}", _groups(groups)]
    return found


def title(one: Mapping[str, Any]) -> str:
    """The task's name."""
    return str(one["about"]["task"]["name"])


def _accuracy(series: list[dict[str, Any]]) -> str:
    rows = []
    for one in series:
        most = one["about"]["samples"]
        best = one["pass_at_k"].get(str(most))
        vote = one["maj_at_k"].get(str(most))
        rows.append(
            [
                title(one),
                str(one["about"]["model"]),
                str(one["problems"]),
                f"{one['answered']} of {one['samples']}",
                percent(one["pass_at_1"]),
                f"{percent(best)}" if best else "–",
                f"{percent(vote)}" if vote else "–",
                str(one["format_errors"]),
                str(one["cut"]),
                str(one["failed"]),
            ]
        )
    head = ["task", "model", "problems", "answers", "pass@1, %", "pass@k, %", "maj@k, %"]
    note = (
        "k is the number of answers to each problem. *Format errors* are answers that came to "
        "their end without a final answer; *cut* ones were ended by `max_tokens` or a budget; both "
        "count as the grader says. *Failed* ones never came and are in no accuracy."
    )
    return table([*head, "format errors", "cut", "failed"], rows) + "\n\n" + note


def _ranks(series: list[dict[str, Any]]) -> str:
    ranks = sorted({int(k) for one in series for k in one["pass_at_k"]})
    rows = [[title(one), *(percent(one["pass_at_k"].get(str(k))) for k in ranks)] for one in series]
    return table(["task", *(f"pass@{k}, %" for k in ranks)], rows)


def _warnings(series: list[dict[str, Any]]) -> list[str]:
    found = []
    for one in series:
        if one["missing"]:
            found.append(
                f"**{title(one)}: {one['missing']} of {one['samples']} answers were never asked "
                "for; the same command goes on.**"
            )
        if one["failed"]:
            why = "; ".join(f"{count} × {said}" for said, count in one["why_failed"].items())
            found.append(
                f"**{title(one)}: {one['failed']} answers failed.** If each were wrong: "
                f"{percent(one['pass_at_1_if_failed_are_wrong'])}. Why: {why}"
            )
        if one["ungraded"]:
            found.append(f"**{title(one)}: the grader gave up on {one['ungraded']} answers.**")
    return found


def _parallelism(series: list[dict[str, Any]]) -> str:
    rows = []
    for one in series:
        found = one["structure"]
        if not found:
            rows.append([title(one), middle(one["tokens"], 0), *["–"] * 7])
            continue
        rows.append(
            [
                title(one),
                middle(one["tokens"], 0),
                middle(found["critical_path_tokens"], 0),
                number(found["degree_of_parallelism"]["mean"]),
                middle(found["degree_of_parallelism"]),
                f"{100 * found['share_with_a_block']:.1f}",
                number(found["branches"]["mean"]),
                share(one["branches_as_asked"]),
                share(one["well_formed"]),
            ]
        )
    head = [
        "task",
        "tokens",
        "critical path",
        "mean parallelism",
        "parallelism",
        "with blocks, %",
    ]
    note = (
        "Median and quartiles over answers; *parallelism* is tokens ÷ tokens on the critical path. "
        "*Branches as asked*: every block has the branches that the problem asks for, and there is "
        "no other. *Well formed*: of the answers that came to their end."
    )
    head += ["branches", "branches as asked, %", "well formed, %"]
    return table(head, rows) + "\n\n" + note


def _time(series: list[dict[str, Any]]) -> str:
    rows = [[title(one), middle(one["seconds"]), middle(one["ttft"], 3)] for one in series]
    note = "Under this run's own load; `latency` measures it in a controlled way."
    return table(["task", "seconds an answer", "time to first token, s"], rows) + "\n\n" + note


def _groups(groups: Mapping[str, Any]) -> str:
    rows = [
        [
            value or "–",
            *(str(one[name]) for name in ("problems", "answered")),
            percent(one["pass_at_1"]),
            *(str(one[name]) for name in ("format_errors", "cut")),
            *(share(one[name]) for name in ("branches_as_asked", "well_formed")),
        ]
        for value, one in groups.items()
    ]
    head = ["", "problems", "answers", "pass@1, %", "format errors", "cut"]
    return table([*head, "branches as asked, %", "well formed, %"], rows)
