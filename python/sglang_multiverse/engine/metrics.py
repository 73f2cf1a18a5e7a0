"""Prometheus counters of the scheduler process, beside SGLang's (`--enable-metrics`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .family import Family

_COUNTERS = {
    "requests": "Requests that ended, forked or not.",
    "forked_requests": "Requests that ended and had forked at least once.",
    "blocks": "Parallel blocks opened.",
    "branches": "Branches opened.",
    "tokens": "Tokens after the prompt, forced ones included.",
    "critical_path_tokens": "Positions of the longest path, summed over requests.",
    "forced_tokens": "Tokens written by the engine: headers and closing tags.",
    "retractions": "Families and branches that gave their KV back under pressure.",
}


class Metrics:
    """Counters named `sglang:multiverse_<name>`, with SGLang's labels."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        # After SGLang has set up prometheus_client's multiprocess directory.
        from prometheus_client import Counter

        self.labels = dict(labels)
        self.counters = {
            name: Counter(f"sglang:multiverse_{name}", text, list(self.labels))
            for name, text in _COUNTERS.items()
        }

    def add(self, name: str, amount: int) -> None:
        self.counters[name].labels(**self.labels).inc(amount)

    def family_ended(self, family: Family) -> None:
        summary = family.summary()
        self.add("requests", 1)
        self.add("forked_requests", int(summary["blocks"] > 0))
        for name in ("blocks", "branches", "tokens", "critical_path_tokens", "forced_tokens"):
            self.add(name, summary[name])
