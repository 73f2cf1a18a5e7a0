"""A plugin for the soak: how short of rows and slots the scheduler was, and who gave way why.

`soak.py` puts this folder, which holds an entry point for it, on the server's
path, so that it is loaded in the scheduler's process as any plugin is. What it
counts is on the server's `/metrics`:

    soak:steps_total                       of the scheduler that ran a batch
    soak:overlapped_steps_total            those of the overlap event loop
    soak:steps_short_of_rows_total         no row was free, and somebody waited
    soak:steps_short_of_slots_total        rows were free, and a family waited for slots
    soak:{rows,slots}_{held,wanted}_total  summed over steps; what waits wants a row, and
                                           slots for what it has so far
    soak:retractions_total{cause}          of ours: pressure, preemption, pause
    soak:preemptions_total{by}             ours, or SGLang's own
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_COUNTERS = {
    "steps": (),
    "overlapped_steps": (),
    "steps_short_of_rows": (),
    "steps_short_of_slots": (),
    "rows_held": (),
    "rows_wanted": (),
    "slots_held": (),
    "slots_wanted": (),
    "retractions": ("cause",),
    "preemptions": ("by",),
}


class Gauge:
    """The counters of one scheduler process, and why it retracts at this moment."""

    def __init__(self) -> None:
        self.cause = "pressure"
        self._counters: dict[str, Any] = {}

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        if not self._counters:
            # Not earlier: SGLang must have set up prometheus_client's multiprocess directory.
            from prometheus_client import Counter

            self._counters.update(
                (each, Counter(f"soak:{each}", each, names)) for each, names in _COUNTERS.items()
            )
        counter = self._counters[name]
        (counter.labels(**labels) if labels else counter).inc(amount)

    @contextmanager
    def because(self, cause: str) -> Iterator[None]:
        before, self.cause = self.cause, cause
        try:
            yield
        finally:
            self.cause = before

    def step(self, scheduler: Any, waits_for_slots: bool) -> None:
        """A batch was picked: what is held, and what the rest would hold as well."""
        from sglang_multiverse.engine.extends import _waiting

        pool = scheduler.req_to_token_pool
        queued = scheduler.waiting_queue
        branches = sum(
            not req.kv.holds_kv
            for family in scheduler.families.values()
            for req in _waiting(family)
        )
        waiting = len(queued) + branches
        rows = pool.size - pool.available_size()
        slots = scheduler.max_total_num_tokens - scheduler.extends.free_tokens()
        self.add("steps")
        self.add("overlapped_steps", int(scheduler.enable_overlap))
        self.add("steps_short_of_rows", int(waiting > 0 and pool.available_size() == 0))
        self.add("steps_short_of_slots", int(waits_for_slots))
        self.add("rows_held", rows)
        self.add("rows_wanted", rows + waiting)
        self.add("slots_held", slots)
        wanted = sum(len(req.origin_input_ids) + len(req.output_ids) for req in queued)
        self.add("slots_wanted", slots + wanted)


def register() -> None:
    from sglang.srt.managers.schedule_policy import PrefillAdder

    from sglang_multiverse.engine.extends import Extends
    from sglang_multiverse.engine.pressure import Pressure
    from sglang_multiverse.engine.scheduler import MultiverseScheduler

    gauge = Gauge()
    next_batch, count, preempt_for = Extends.next_batch, Pressure._count, Pressure.preempt_for
    preempt_to_schedule = PrefillAdder.preempt_to_schedule
    get_next, pause = (
        MultiverseScheduler.get_next_batch_to_run,
        MultiverseScheduler.pause_generation,
    )
    waits_for_slots = False

    def watched_batch(self: Any, *args: Any) -> Any:
        nonlocal waits_for_slots
        batch, blocked = next_batch(self, *args)
        waits_for_slots = blocked and self.scheduler.req_to_token_pool.available_size() > 0
        return batch, blocked

    def watched_next(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal waits_for_slots
        waits_for_slots = False
        plan = get_next(self, *args, **kwargs)
        if plan.batch_to_run is not None and self.vocabulary is not None:
            gauge.step(self, waits_for_slots)
        return plan

    def watched_count(self: Any) -> None:
        gauge.add("retractions", cause=gauge.cause)
        count(self)

    def watched_pause(self: Any, request: Any) -> None:
        with gauge.because("pause"):
            pause(self, request)

    def watched_preemption(self: Any, newcomer: Any) -> bool:
        with gauge.because("preemption"):
            done: bool = preempt_for(self, newcomer)
        gauge.add("preemptions", int(done), by="ours")
        return done

    def watched_sglang_preemption(self: Any, req: Any) -> bool:
        before = len(self.preempt_list)
        done: bool = preempt_to_schedule(self, req)
        gauge.add("preemptions", len(self.preempt_list) - before, by="sglang")
        return done

    Extends.next_batch = watched_batch  # type: ignore[method-assign]
    Pressure._count = watched_count  # type: ignore[method-assign]
    Pressure.preempt_for = watched_preemption  # type: ignore[method-assign]
    PrefillAdder.preempt_to_schedule = watched_sglang_preemption
    MultiverseScheduler.get_next_batch_to_run = watched_next  # type: ignore[method-assign]
    MultiverseScheduler.pause_generation = watched_pause  # type: ignore[method-assign]
