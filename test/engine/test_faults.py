"""Scheduling, one script a case: faults that were there once, and what chance seldom meets."""

from __future__ import annotations

import functools
import random
from typing import Any

import pytest

from modelless.script import Script, tokenizer
from sglang_multiverse.engine.pressure import Pressure


@pytest.fixture(params=[False, True], ids=["", "overlap"])
def serve(request: pytest.FixtureRequest) -> Any:
    """Makes a scheduler with a script, with the normal and with the overlap event loop."""
    return functools.partial(Script, overlap=request.param)


def plan(branches: int, text: str = "a") -> tuple[int, ...]:
    outlines = "<Outline>b</Outline>" * branches
    ids = tokenizer().encode(f"{text}<Parallel><Goal>{outlines}</Goal>", add_special_tokens=False)
    return tuple(ids)


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_fewer_rows_than_branches_are_served_in_waves(serve: Any, rows: int) -> None:
    script = serve(slots=4096, rows=rows)
    assert script.ask_ids(plan(3)) is not None
    script.finish(1000)


def test_two_pauses_in_a_row_queue_a_family_once(serve: Any) -> None:
    script = serve(slots=4096, rows=64)
    assert script.ask_ids(plan(3)) is not None
    for _ in range(6):
        script.step()
    script.pause("retract", 0)
    script.pause("retract", 0)
    script.finish(1000)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 6])
def test_a_pause_amid_a_chunked_prefill(serve: Any, steps: int) -> None:
    script = serve("--chunked-prefill-size", "16", slots=4096, rows=64)
    assert script.ask_ids(plan(3)) is not None
    for _ in range(steps):
        script.step()
    script.pause("retract", 0)
    script.finish(1000)


def test_making_room_with_a_prefill_decode_interval(serve: Any) -> None:
    script = serve("--prefill-decode-interval", "8", slots=320, rows=64)
    for n in range(8):
        script.ask_ids(plan(3, "ab" * n))
    script.finish(6000)


@pytest.mark.parametrize("end", ["", "\n", "\n<Path>\n1.1:a</Path>", "\n<Path>\n1.1:a</Path>\n"])
def test_a_prompt_that_ends_where_a_nested_branch_is_due(serve: Any, end: str) -> None:
    outlines = "<Outline>b</Outline>" * 2
    inner = f"\n<Path>\n1:<Parallel><Goal>{outlines}</Goal>{end}"
    prompt = (*plan(2), *tokenizer().encode(inner, add_special_tokens=False))
    script = serve(slots=4096, rows=64)
    assert script.ask_ids(prompt) is not None
    script.finish(1000)


def test_nested_plans_side_by_side_on_the_fewest_rows(serve: Any) -> None:
    """Branches that wait for rows for their own branches: the last gives way to the first."""
    script = serve(slots=4096, rows=3)
    for n in range(40):
        script.ask_ids(plan(3, "abc"[: n % 4] + str(n)))
        script.finish(2000)


def test_a_newcomer_far_above_them_preempts_families(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They go on later, with the text they would have written alone."""
    preempted: list[bool] = []
    preempt_for = Pressure.preempt_for

    def counted(self: Pressure, newcomer: Any) -> bool:
        preempted.append(preempt_for(self, newcomer))
        return preempted[-1]

    monkeypatch.setattr(Pressure, "preempt_for", counted)
    for n in range(4):
        script = serve("--enable-priority-scheduling", slots=260, rows=6)
        for text in range(n, n + 4):
            script.ask(text, 40, priority=0)
        for _ in range(12 + n):
            script.step()
        for text in range(n + 4, n + 6):
            script.ask(text, 60, priority=90)
        script.finish()
    assert any(preempted)


@pytest.mark.parametrize("chunk", [16, 24, 40])
@pytest.mark.parametrize("mixed", [False, True], ids=["", "mixed"])
def test_a_crowd_of_prompts_in_chunks(serve: Any, chunk: int, mixed: bool) -> None:
    """Four at a time, cut anywhere, so that chunks, headers and decode steps alternate, or mix."""
    draw = random.Random(chunk)
    flags = ("--chunked-prefill-size", str(chunk), *(("--enable-mixed-chunk",) if mixed else ()))
    script = serve(*flags, slots=4096, rows=64)
    left = 24
    while left or script.scheduler.open:
        while left and len(script.scheduler.open) < 4:
            script.ask(draw.randrange(200), draw.choice([5, 30, 60, 120, 180]))
            left -= 1
        script.step()
    script.finish(6000)


@pytest.mark.parametrize("steps", range(1, 9))
def test_an_abort_and_a_pause_amid_a_chunked_prompt_with_blocks(serve: Any, steps: int) -> None:
    """It is queued again, aborted as it is, and neither forks nor computes its blocks in line."""
    script = serve("--chunked-prefill-size", "16", slots=4096, rows=64)
    script.ask(9, 208)
    for _ in range(steps):
        script.step()
    script.abort(0, "rid")
    script.pause("retract", 0)
    script.ask(9, 207)
    script.finish(1000)
