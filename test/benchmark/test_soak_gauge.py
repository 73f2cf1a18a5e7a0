"""What the soak's plugin counts in the scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelless.script import Script, tokenizer

GAUGE = Path(__file__).resolve().parents[2] / "benchmark" / "gauge"


@pytest.fixture
def gauge(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin in this process, and its hooks gone afterwards."""
    from sglang.srt.managers.schedule_policy import PrefillAdder

    from sglang_multiverse.engine.extends import Extends
    from sglang_multiverse.engine.pressure import Pressure
    from sglang_multiverse.engine.scheduler import MultiverseScheduler

    monkeypatch.syspath_prepend(GAUGE)
    import gauge

    for owner, names in (
        (Extends, ["next_batch"]),
        (Pressure, ["_count", "preempt_for"]),
        (PrefillAdder, ["preempt_to_schedule"]),
        (MultiverseScheduler, ["get_next_batch_to_run", "pause_generation"]),
    ):
        for name in names:
            monkeypatch.setattr(owner, name, getattr(owner, name))
    counts: dict[str, float] = {}

    def add(self: Any, name: str, amount: float = 1, **labels: str) -> None:
        key = " ".join([name, *labels.values()])
        counts[key] = counts.get(key, 0) + amount

    monkeypatch.setattr(gauge.Gauge, "add", add)
    gauge.register()
    return counts


def serve(script: Script, texts: range, **options: Any) -> None:
    for text in texts:
        script.ask(text, 60, **options)


@pytest.mark.parametrize("overlap", [False, True])
def test_the_gauge_counts_what_is_short(gauge: dict[str, float], overlap: bool) -> None:
    script = Script(slots=4096, rows=3, overlap=overlap)
    serve(script, range(4))
    script.finish()
    assert gauge["steps_short_of_rows"] > 0
    assert gauge["steps_short_of_slots"] == 0
    assert gauge["rows_held"] <= 3 * gauge["steps"] < gauge["rows_wanted"]
    assert gauge["overlapped_steps"] == (gauge["steps"] if overlap else 0)
    assert gauge["retractions pressure"] > 0

    gauge.clear()
    script = Script(slots=220, rows=64, overlap=overlap)
    serve(script, range(12))
    script.finish(4000)
    assert gauge["steps_short_of_rows"] == 0
    assert gauge["steps_short_of_slots"] > 0
    assert gauge["slots_held"] <= 220 * gauge["steps"] < gauge["slots_wanted"]

    gauge.clear()
    script = Script(slots=4096, rows=64, overlap=overlap)
    serve(script, range(3))
    script.finish()
    assert gauge["steps_short_of_rows"] == gauge["steps_short_of_slots"] == 0


def test_the_gauge_calls_rows_short_only_if_somebody_waits(
    gauge: dict[str, float],
) -> None:
    """Two requests that do not fork, on two rows; then four."""
    for count in (2, 4):
        gauge.clear()
        script = Script(slots=4096, rows=2)
        for _ in range(count):
            assert script.ask_ids(tuple(tokenizer().encode("q", add_special_tokens=False)))
        script.finish()
        assert gauge["rows_held"] > gauge["steps"]
        assert (gauge["steps_short_of_rows"] > 0) == (count > 2)


def test_the_gauge_knows_why_families_give_way(gauge: dict[str, float]) -> None:
    script = Script("--enable-priority-scheduling", slots=4096, rows=64)
    serve(script, range(4), priority=0)
    for _ in range(12):
        script.step()
    assert script.scheduler.families
    script.pause("retract", 0)
    assert gauge["retractions pause"] > 0
    assert not gauge.get("retractions pressure")
    script.finish()

    gauge.clear()
    for n in range(4):
        script = Script("--enable-priority-scheduling", slots=260, rows=6)
        serve(script, range(n, n + 4), priority=0)
        for _ in range(12 + n):
            script.step()
        serve(script, range(n + 4, n + 6), priority=90)
        script.finish()
    assert gauge["preemptions ours"] == gauge["retractions preemption"] > 0
