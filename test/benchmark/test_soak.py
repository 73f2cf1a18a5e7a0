"""The soak's arithmetic, what its operators send, and that it does not look away."""

from __future__ import annotations

import copy
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from models import problems

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmark"))

import soak
import soak_operator
from load import Load, Prompt, draw_prompts
from soak_demand import demand
from soak_operator import ACTS, Operator
from soak_watch import labelled

GOOD: dict[str, Any] = {
    "overlap": False,
    "pauses": {"retract": 3},
    "weight_updates": 1,
    "rss": {"flat": True},
    "shortage": {
        "steps": 90,
        "overlapped_steps": 0,
        "steps_short_of_rows": 4,
        "steps_short_of_slots": 5,
    },
    "retractions": {"pressure": 1},
    "preemptions": {"ours": 1, "sglang": 0},
    "leaked_slots": {"before_flush": 0, "after_flush": 0},
    "left_behind": 0,
    "flush_succeeded": True,
    "greedy_answers": {"compared": 7, "mismatches": 0},
}


# --- how much is wanted ------------------------------------------------------


def test_demand_counts_rows_and_slots_step_by_step(tiny_tokenizer: Any, tiny_tags: Any) -> None:
    """A trunk of a plan, two branches of 3 and 5 tokens, and what follows."""
    plan = "<Parallel><Goal><Outline>1</Outline><Outline>2</Outline></Goal>"
    paths = ("<Path>1</Path>", "<Path>222</Path>")
    ids = [
        tiny_tokenizer.encode(text, add_special_tokens=False)
        for text in ("a", plan, *paths, "<Conclusion>3</Conclusion></Parallel>")
    ]
    prompt, plan_ids, one, other, end = (tuple(part) for part in ids)
    whole = Prompt(prompt, "flat", False, (*plan_ids, *one, *other, *end))
    found = demand([whole], tiny_tags, clients=1)

    n, short, long, m = len(plan_ids), len(one), len(other), len(end)
    assert (short, long) == (3, 5)
    rows = [1] * n + [3] * short + [2] * (long - short) + [1] * m
    slots, held = [], 0
    for step in range(n + long + m):
        at_once = 1 if step < n or step >= n + long else 1 + (step < n + short)
        held += at_once
        slots.append(held)
    assert found.rows == pytest.approx(sum(rows) / len(rows))
    assert found.slots == pytest.approx(sum(slots) / len(slots) + len(prompt))
    six = demand([whole], tiny_tags, clients=6)
    assert six.rows == pytest.approx(6 * found.rows)
    assert six.slots - len(prompt) == pytest.approx(6 * (found.slots - len(prompt)))


def test_demand_of_a_cut_prompt_is_that_of_its_rest(tiny_tokenizer: Any, tiny_tags: Any) -> None:
    solution = tiny_tokenizer.encode(
        problems.generate(3, "held-out", "flat").solution, add_special_tokens=False
    )
    prompt = Prompt((5, *solution[:-9]), "flat", True, tuple(solution[-9:]))
    found = demand([prompt], tiny_tags, clients=1)
    assert found.rows == 1
    assert found.slots == len(prompt.ids) + sum(range(1, 10)) / 9


def test_a_cut_prompt_and_its_rest_are_the_answer(tiny_tokenizer: Any) -> None:
    prompts = draw_prompts(tiny_tokenizer, 20, seed=3)
    assert {prompt.cut for prompt in prompts} == {True, False}
    whole = draw_prompts(tiny_tokenizer, 20, seed=3)
    assert whole == prompts
    for prompt in prompts:
        text = tiny_tokenizer.decode([*prompt.ids, *prompt.rest])
        assert text.count("<Parallel>") == text.count("</Parallel>")
        assert prompt.rest


# --- what clients put up with ------------------------------------------------

ABORTED = {"meta_info": {"finish_reason": {"type": "abort"}}}


def judged(aborted: list[tuple[float, str]], rid: str, start: float) -> str:
    load = Load("http://nowhere", [], 1, 1)
    load.aborted = aborted
    return load._judge(rid, start, ABORTED)[0]


@pytest.mark.parametrize("prefix", ["ab", "ab-cd", ""])
def test_an_abort_explains_requests_that_begin_with_its_id(prefix: str) -> None:
    assert judged([(2.0, prefix)], "ab-cd", 1.0) == "aborted"


@pytest.mark.parametrize("aborted", [[], [(2.0, "b")], [(0.5, "ab")], [(2.0, "ab-cd-e")]])
def test_any_other_end_is_an_error(aborted: list[tuple[float, str]]) -> None:
    with pytest.raises(ValueError, match="abort"):
        judged(aborted, "ab-cd", 1.0)


# --- what operators send -----------------------------------------------------


async def acted(
    act: str, monkeypatch: pytest.MonkeyPatch, success: bool = True
) -> tuple[Operator, list[tuple[str, Any]]]:
    sent: list[tuple[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((request.url.path, json.loads(request.content or "null")))
        return httpx.Response(200, json={"success": success, "message": "no such weights"})

    monkeypatch.setattr(soak_operator, "PAUSE", (0, 0))
    load = Load("http://server", [], 1, 1)
    operator = Operator(load, Path("model"), seed=1)
    for holder in (load, operator):
        holder.http = httpx.AsyncClient(
            transport=httpx.MockTransport(answer), base_url="http://server"
        )
    try:
        await operator.act(act)
    except ValueError as error:
        operator.errors.append(str(error))
    return operator, sent


@pytest.mark.parametrize("act", sorted(set(ACTS) - {"abort_all"}))
async def test_a_pause_is_always_followed_by_its_end(
    act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, sent = await acted(act, monkeypatch)
    paths = [path for path, _ in sent]
    assert paths[0] == "/pause_generation"
    assert paths[-1] == "/continue_generation"
    assert operator.pauses.total() == 1
    assert operator.updates == (act == "update")
    modes = [body["mode"] for path, body in sent if path == "/pause_generation"]
    expected = {"both": ["in_place", "retract"], "update": ["retract"]}.get(act, [act])
    assert sorted(modes) == expected
    if act == "update":
        assert sent[1] == ("/update_weights_from_disk", {"model_path": "model"})


async def test_a_failed_update_is_an_error_and_the_server_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    operator, sent = await acted("update", monkeypatch, success=False)
    assert operator.errors == ["no such weights"]
    assert operator.updates == 0
    assert sent[-1][0] == "/continue_generation"


async def test_an_abort_of_all_is_known_to_the_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    before = time.monotonic()
    operator, sent = await acted("abort_all", monkeypatch)
    assert sent == [("/abort_request", {"abort_all": True})]
    (sent_at, prefix), (done_at, again) = operator.load.aborted
    assert before <= sent_at <= done_at
    assert prefix == again == ""


# --- what counts as a violation ----------------------------------------------


def violations(report: dict[str, Any], alive: bool = True) -> list[str]:
    return soak.find_violations(report, [], [], [], alive)


def test_a_good_run_has_no_violation() -> None:
    assert violations(GOOD) == []
    assert violations(GOOD, alive=False)
    assert soak.find_violations(GOOD, ["e"], ["h"], ["s"], True) == [
        "in the log: s",
        "hang: h",
        "error: e",
    ]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("overlap", True),
        ("pauses", {}),
        ("weight_updates", 0),
        ("rss.flat", False),
        ("shortage.overlapped_steps", 3),
        ("shortage.steps_short_of_rows", 0),
        ("shortage.steps_short_of_slots", 0),
        ("retractions.pressure", 0),
        ("preemptions.ours", 0),
        ("leaked_slots.before_flush", 1),
        ("leaked_slots.after_flush", 1),
        ("left_behind", 1),
        ("flush_succeeded", False),
        ("greedy_answers.compared", 0),
        ("greedy_answers.mismatches", 1),
        ("server_failed", "why"),
    ],
)
def test_each_broken_promise_is_one(path: str, value: Any) -> None:
    report = copy.deepcopy(GOOD)
    *parents, name = path.split(".")
    inner = report
    for parent in parents:
        inner = inner[parent]
    inner[name] = value
    assert len(violations(report)) == 1


def test_counters_are_summed_over_the_labels_asked_for() -> None:
    text = 'a_total{by="x",pid="1"} 2.0\na_total{by="y"} 3.0\nb_total 7.0\naa_total 9.0\n'
    assert labelled(text, "a_total") == 5
    assert labelled(text, "a_total", 'by="y"') == 3
    assert labelled(text, "b_total") == 7
    assert labelled(text, "b_total", 'by="y"') == 0
    assert labelled(text, "c_total") == 0
