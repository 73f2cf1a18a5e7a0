"""results.json: everything that a report shows, computed from the records."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .errors import EvaluationError
from .stats import compare
from .store import Store
from .summary import accuracies, summarise

SCHEMA = 2
"""Raised when a field changes its meaning; docs/evaluation.md describes them."""


def results(store: Store) -> dict[str, Any]:
    """The results of a directory's records.

    Raises:
        EvaluationError: no command has begun there.
    """
    kind = store.fact("kind")
    if kind is None:
        raise EvaluationError("out: no command has begun there")
    found = {
        "schema": SCHEMA,
        "kind": kind,
        "commands": store.fact("commands"),
        "machine": store.fact("machine"),
        "servers": store.fact("servers"),
        "bootstrap": store.fact("bootstrap"),
    }
    if kind == "latency":
        from .timing import summarise_timings

        return {**found, "latency": summarise_timings(store.fact("latency"), store.timings())}
    found["series"] = [_series(store, *one) for one in store.all_series()]
    if kind == "budget":
        found["paired"] = _paired(store)
    return found


def _paired(store: Store) -> list[dict[str, Any]]:
    """The parallel model against the baseline at each budget, problem by problem."""
    shares = {
        (about["role"], about["ladder"], about["budget"]): accuracies(store.asked(number))
        for number, about in store.all_series()
    }
    found = []
    for (role, ladder, budget), b in shares.items():
        a = shares.get(("baseline", "total", budget), {})
        pairs = [(a[problem], b[problem]) for problem in b if problem in a]
        if role == "parallel" and pairs:
            paired = asdict(compare([pairs], **store.fact("bootstrap")))
            found.append({"ladder": ladder, "budget": budget, **paired})
    return found


def _series(store: Store, number: int, about: dict[str, Any]) -> dict[str, Any]:
    scored = summarise(store.asked(number), **store.fact("bootstrap"))
    return {"about": about, **scored}
