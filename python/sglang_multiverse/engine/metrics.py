"""Prometheus metrics of the scheduler process, beside SGLang's (`--enable-metrics`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sglang.srt.managers.utils import is_health_check_generate_req

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .family import Family

COUNTERS = {
    "requests": "Requests that ended, forked or not.",
    "forked_requests": "Requests that ended and had forked at least once.",
    "blocks": "Parallel blocks opened, counted when their request ends.",
    "branches": "Branches opened, counted when their request ends.",
    "tokens": "Tokens after the prompt, forced ones included, counted when their request ends.",
    "critical_path_tokens": "Positions of the longest path, summed over requests that ended.",
    "forced_tokens": "Tokens written by the engine: headers and closing tags.",
    "retractions": "Families and branches that gave their KV back under pressure.",
}
GAUGES = {
    "live_branches": "Branches that were opened and have not written their closing tag yet.",
}
HISTOGRAMS = {
    "fork_seconds": "From the end of a plan until a branch of it decodes, waits for room included.",
    "join_seconds": "From the last closing tag of a block until its parent decodes again.",
}
# Seconds. A fork is about two forwards: milliseconds on a GPU, tenths on a CPU; seconds in a queue.
BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Wait(NamedTuple):
    """A fork or a join that is under way, or, with its end, over."""

    metric: str  # which of `HISTOGRAMS` it counts for
    begun: float  # `time.perf_counter()`, in seconds, like all times here
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.begun


class Metrics:
    """Metrics named `sglang:multiverse_<name>`, with SGLang's labels; all there from the start."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        # After SGLang has set up prometheus_client's multiprocess directory.
        from prometheus_client import Counter, Gauge, Histogram

        names, values = list(labels), list(labels.values())
        self._counters = {
            name: Counter(f"sglang:multiverse_{name}", text, names).labels(*values)
            for name, text in COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(
                f"sglang:multiverse_{name}", text, names, multiprocess_mode="mostrecent"
            ).labels(*values)
            for name, text in GAUGES.items()
        }
        self._histograms = {
            name: Histogram(f"sglang:multiverse_{name}", text, names, buckets=BUCKETS).labels(
                *values
            )
            for name, text in HISTOGRAMS.items()
        }
        self._live: dict[str, int] = {}  # branches by rid, of families that have some
        self._live_total = 0
        self._gauges["live_branches"].set(0)

    def add(self, name: str, amount: int) -> None:
        self._counters[name].inc(amount)

    def family_stepped(self, family: Family) -> None:
        for wait in family.waits:
            self._histograms[wait.metric].observe(wait.seconds)
        family.waits.clear()
        self._set_live(family.trunk.rid, family.live_branches)

    def family_left(self, rid: str) -> None:
        """The request `rid` has ended, or SGLang has the whole of it: it has no branches."""
        self._set_live(rid, 0)

    def family_ended(self, family: Family) -> None:
        if is_health_check_generate_req(family.trunk):
            return  # as SGLang's own metrics: probes would drown a quiet server's requests
        summary = family.summary()
        self.add("requests", 1)
        self.add("forked_requests", int(summary["blocks"] > 0))
        for name in ("blocks", "branches", "tokens", "critical_path_tokens", "forced_tokens"):
            self.add(name, summary[name])

    def _set_live(self, rid: str, branches: int) -> None:
        change = branches - self._live.pop(rid, 0)
        if branches:
            self._live[rid] = branches
        if change:
            self._live_total += change
            self._gauges["live_branches"].set(self._live_total)
