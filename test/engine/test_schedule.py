"""Whatever a server is asked to do, in whatever order: every answer is the right one.

Hypothesis sends requests, aborts, pauses and flushes to SGLang's real scheduler on
a small pool, with a toy model in the model's place. After every step SGLang's own
leak checks run, nothing is queued twice and nobody is forgotten. In the end
everything drains, the pool is whole, and every answer that was not aborted equals
the same text written in a line.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from modelless.script import Script

# Longer and fresh: SCHEDULE_TEST_SCALE=50 pytest test/engine/test_schedule.py
SCALE = int(os.environ.get("SCHEDULE_TEST_SCALE", "1"))

FLAGS = (
    "",
    "--chunked-prefill-size 16",
    "--disable-radix-cache",
    "--enable-priority-scheduling",
    "--enable-mixed-chunk --chunked-prefill-size 16",
    "--prefill-decode-interval 4 --chunked-prefill-size 32",
    "--page-size 4 --chunked-prefill-size 32",
    "--page-size 16 --enable-mixed-chunk",
)
# Slots and rows. The longest text fits alone in each, on a row for each level of nesting.
SIZES = ((4096, 64), (640, 64), (400, 48), (4096, 3), (512, 4), (448, 6))


STEPS: list[int] = []


class Schedule(RuleBasedStateMachine):
    @initialize(
        flags=st.sampled_from(FLAGS),
        size=st.sampled_from(SIZES),
        overlap=st.booleans(),
        sees=st.booleans(),
    )
    def start(self, flags: str, size: tuple[int, int], **how: bool) -> None:
        self.script = Script(*flags.split(), slots=size[0], rows=size[1], **how)

    @property
    def few(self) -> bool:
        return len(self.script.scheduler.open) < 6

    @precondition(lambda self: self.few)
    @rule(
        text=st.integers(0, 11),
        cut=st.integers(0, 255),
        width=st.sampled_from([256, 256, 1, 2]),
        stream=st.booleans(),
        priority=st.sampled_from([None, None, 0, 90]),
        copies=st.sampled_from([1, 1, 1, 2]),
    )
    def arrive(self, text: int, cut: int, width: int, copies: int, **options: Any) -> None:
        for _ in range(copies):
            self.script.ask(text, cut, multiverse={"max_parallel_branches": width}, **options)

    @rule(count=st.integers(1, 60))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.script.step()

    @rule(which=st.integers(0, 7), how=st.sampled_from(["rid", "rid", "prefix", "all"]))
    def abort(self, which: int, how: str) -> None:
        self.script.abort(which, how)

    @rule(steps=st.integers(0, 3), flush=st.booleans())
    def pause_in_place(self, steps: int, flush: bool) -> None:
        self.script.pause("in_place", steps, flush=flush)

    @rule(steps=st.integers(0, 3), flush=st.booleans())
    def pause_and_retract(self, steps: int, flush: bool) -> None:
        self.script.pause("retract", steps, flush=flush)

    @rule()
    def flush(self) -> None:
        self.script.flush()

    @invariant()
    def nothing_lost_or_doubled(self) -> None:
        if hasattr(self, "script"):
            self.script.check()

    def teardown(self) -> None:
        if hasattr(self, "script"):
            self.script.finish()
            STEPS.append(self.script.steps)


Schedule.TestCase.settings = settings(
    max_examples=120 * SCALE,
    # Shrinking a script of a few hundred steps takes longer than reading it.
    phases=(Phase.explicit, Phase.generate),
    stateful_step_count=24,
    deadline=None,
    database=None,
    derandomize=SCALE == 1,
    suppress_health_check=list(HealthCheck),
)
TestSchedule = Schedule.TestCase


def test_that_was_long_enough() -> None:
    """The machine above ran whole, in steps of the event loop with all checks after each."""
    assert len(STEPS) >= 120 * SCALE
    assert sum(STEPS) >= 10_000 * SCALE, sum(STEPS)
