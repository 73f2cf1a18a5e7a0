"""report.md from results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import budgets, comparison, latency, runs

_BODIES = {
    "run": runs.body,
    "budget": budgets.body,
    "latency": latency.body,
    "compare": comparison.body,
}


def render(results: Mapping[str, Any], figures: Sequence[str]) -> str:
    """The whole report; `figures` are the names of the files beside it."""
    shown = [f"![{name.removesuffix('.svg')}]({name})" for name in figures]
    return "\n\n".join([*_BODIES[results["kind"]](results), *shown, *_provenance(results)])


def _provenance(results: Mapping[str, Any]) -> list[str]:
    found = ["## How it came about"]
    if commands := results.get("commands"):
        found.append("```\n" + "\n".join(commands) + "\n```")
    said = []
    if machine := results.get("machine"):
        versions = ", ".join(f"{name} {what}" for name, what in machine["versions"].items())
        said.append(
            f"- asked from: {machine['cores']} cores ({machine['architecture']}), "
            f"{machine['memory_gib']} GiB, Python {machine['python']}, {machine['date']}, "
            f"load before {machine['load_before']}"
        )
        said.append(f"- versions: {versions}")
    for role, info in (results.get("servers") or {}).items():
        told = ", ".join(f"{key} {value}" for key, value in info.items()) or "says nothing"
        said.append(f"- server{f' ({role})' if role else ''}: {told}")
    if told := results["bootstrap"]:
        said.append(
            f"- in brackets behind an accuracy: {told['confidence']:.0%} interval, bootstrap over "
            f"problems, {told['resamples']:,} resamples; where all problems are right, or none, "
            "the exact binomial one"
        )
    return [*found, "\n".join(said)]
