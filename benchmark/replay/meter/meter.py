"""A plugin for the replay benchmark: what the scheduler's steps were, and what they held.

`throughput.py` puts this folder, which holds an entry point for it, on the server's path, so that
it is loaded in the scheduler's process as any plugin is. What it counts is on `/metrics`:

    meter:forwards_total{kind}          extend or decode
    meter:rows_total{kind}              summed over them
    meter:forward_seconds_total{kind}   within the worker's forward call, by the clock
    meter:busy_seconds_total{kind}      of the thread on its core in that call: other work on the
                                        machine does not count, nor do further threads
    meter:host_seconds_total            of the scheduler's thread on its core, outside that call, in
                                        rounds of its loop that ran one
    meter:rows_held, meter:slots_held   the most at a time since the cache was flushed
"""

from __future__ import annotations

import time
from typing import Any

COUNTERS = {
    "forwards": ("kind",),
    "rows": ("kind",),
    "forward_seconds": ("kind",),
    "busy_seconds": ("kind",),
    "host_seconds": (),
}
PEAKS = ("rows_held", "slots_held")


class Meter:
    """Counts for one scheduler process."""

    def __init__(self) -> None:
        self._metrics: dict[str, Any] = {}
        self._peaks = dict.fromkeys(PEAKS, 0)
        self._mark: float | None = None  # thread's time when the round of the loop began
        self._forward = 0.0  # of the thread's time in that round

    def add(self, name: str, amount: float, **labels: str) -> None:
        counter = self._made()[name]
        (counter.labels(**labels) if labels else counter).inc(amount)

    def peak(self, name: str, value: int) -> None:
        if value > self._peaks[name]:
            self._peaks[name] = value
            self._made()[name].set(value)

    def forget_peaks(self) -> None:
        for name in PEAKS:
            self._peaks[name] = 0
            self._made()[name].set(0)

    def _made(self) -> dict[str, Any]:
        if not self._metrics:
            # Not earlier: SGLang must have set up prometheus_client's multiprocess directory.
            from prometheus_client import Counter, Gauge

            for name, labels in COUNTERS.items():
                self._metrics[name] = Counter(f"meter:{name}", name, labels)
            for name in PEAKS:
                self._metrics[name] = Gauge(f"meter:{name}", name, multiprocess_mode="mostrecent")
        return self._metrics

    def round(self) -> None:
        """The scheduler's loop begins a round, and has ended one."""
        now = time.thread_time()
        if self._mark is not None and self._forward:
            self.add("host_seconds", max(now - self._mark - self._forward, 0.0))
        self._mark, self._forward = now, 0.0

    def forwarded(self, batch: Any, wall: float, thread: float) -> None:
        kind = "extend" if batch.forward_mode.is_extend() else "decode"
        self._forward += thread
        self.add("forwards", 1, kind=kind)
        self.add("rows", len(batch.reqs), kind=kind)
        self.add("forward_seconds", wall, kind=kind)
        self.add("busy_seconds", thread, kind=kind)

    def held(self, scheduler: Any) -> None:
        pool = scheduler.req_to_token_pool
        self.peak("rows_held", pool.size - pool.available_size())
        free = scheduler.extends.free_tokens()
        self.peak("slots_held", scheduler.max_total_num_tokens - free)


def register() -> None:
    from sglang.srt.managers.tp_worker import TpModelWorker

    from sglang_multiverse.engine.scheduler import MultiverseScheduler

    meter = Meter()
    get_next, flush = MultiverseScheduler.get_next_batch_to_run, MultiverseScheduler.flush_cache
    forward = TpModelWorker.forward_batch_generation

    def watched_next(self: Any, *args: Any, **kwargs: Any) -> Any:
        meter.round()
        plan = get_next(self, *args, **kwargs)
        if plan.batch_to_run is not None:
            meter.held(self)
        return plan

    def watched_forward(self: Any, batch: Any, *args: Any, **kwargs: Any) -> Any:
        wall, thread = time.perf_counter(), time.thread_time()
        try:
            return forward(self, batch, *args, **kwargs)
        finally:
            meter.forwarded(batch, time.perf_counter() - wall, time.thread_time() - thread)

    def watched_flush(self: Any, *args: Any, **kwargs: Any) -> Any:
        meter.forget_peaks()
        return flush(self, *args, **kwargs)

    MultiverseScheduler.get_next_batch_to_run = watched_next  # type: ignore[method-assign]
    MultiverseScheduler.flush_cache = watched_flush
    TpModelWorker.forward_batch_generation = watched_forward
