"""Figures of a way under a load."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from loops import Asked, Load

MS = 1e3


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all are not above."""
    ordered = sorted(values)
    return ordered[max(-int(-share * len(ordered) // 1) - 1, 0)]


def both(values: Sequence[float]) -> dict[str, float]:
    return {"p50": round(statistics.median(values), 3), "p99": round(quantile(values, 0.99), 3)}


def tally(loads: Sequence[Load], *, alone: bool) -> dict[str, Any]:
    """Of the turns that one way had.

    `alone`: answers came one after the other, and the branches of each side by side.
    """
    asked = [one for load in loads for one in load.asked]
    seconds = sum(load.seconds for load in loads)
    tokens = sum(len(answer.ids) for answer, _ in asked)
    found: dict[str, Any] = {
        "answers": len(asked),
        "wrong": sum(reply.wrong for _, reply in asked),
        "answers_s": round(len(asked) / seconds, 3),
        "answers_s_by_turn": [round(len(load.asked) / load.seconds, 3) for load in loads],
        "tokens_s": round(tokens / seconds, 1),
        "latency_s": both([reply.seconds for _, reply in asked]),
        "critical_token_ms": both([MS * reply.seconds / answer.path for answer, reply in asked]),
        "first_token_ms": both([MS * reply.first for _, reply in asked]),
        "requests": sum(load.requests for load in loads),
    }
    return found | _server_side(loads, asked, alone=alone)


def _server_side(loads: Sequence[Load], asked: Sequence[Asked], *, alone: bool) -> dict[str, Any]:
    """Empty where the server has no meter."""
    if not any("host_seconds" in load.metered for load in loads):
        return {}

    def total(name: str) -> float:
        return sum(load.metered.get(name, 0.0) for load in loads)

    def each(name: str, kind: str) -> float:
        return total(f"{name} {kind}") / max(total(f"forwards {kind}"), 1)

    kinds = ("extend", "decode")
    forwards = sum(total(f"forwards {kind}") for kind in kinds)
    found = {
        "forwards": {kind: int(total(f"forwards {kind}")) for kind in kinds},
        "rows_a_decode": round(each("rows", "decode"), 2),
        "forward_ms": {
            kind: round(
                MS * total(f"forward_seconds {kind}") / max(total(f"forwards {kind}"), 1), 3
            )
            for kind in kinds
        },
        "busy_ms_an_answer": round(
            MS
            * (total("host_seconds") + sum(total(f"busy_seconds {kind}") for kind in kinds))
            / len(asked),
            2,
        ),
        "host_ms_a_step": round(MS * total("host_seconds") / max(forwards, 1), 3),
        "most_rows": int(max(load.metered["rows_held"] for load in loads)),
        "most_kv_tokens": int(max(load.metered["slots_held"] for load in loads)),
    }
    forks = sum(answer.forks for answer, _ in asked)
    if alone and forks:
        least = sum(answer.path - answer.forced for answer, _ in asked)
        found["extra_forwards_a_fork"] = round((forwards - least) / forks, 2)
    return found
