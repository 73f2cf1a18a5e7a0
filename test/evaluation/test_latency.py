"""Ways of known speeds: their ratios come out, warm-ups do not, and the ways take turns."""

from __future__ import annotations

import json

import pytest

from sglang_multiverse.evaluation.__main__ import main
from sglang_multiverse.evaluation.tasks import Spec, open_task
from sglang_multiverse.evaluation.timing import summarise_timings
from sglang_multiverse.stand_in import Response

from .known import STRUCTURE, Flushing, Known, Said, question, stream

TICK = 0.006
"""Seconds before each of an answer's six events, in the fastest way."""


@pytest.fixture(scope="module")
def solutions():
    found = open_task(Spec("bundled", seed=6_000_000, limit=16)).problems()
    return {one.messages[-1]["content"]: one.entry.solution for one in found}


class Paced(Known):
    """Every answer takes its way's time; the very first answers, of the warm-up, take longer."""

    def __init__(self, solutions, log, slowness, cold=0):
        def script(body, times):
            way = "alone" if body.get("multiverse") else slowness[0]
            log.append(way)
            factor = slowness[1][way] + (50 if len(self.bodies) <= cold else 0)
            return stream(Said(solutions[question(body)], structure=STRUCTURE), wait=factor * TICK)

        super().__init__(script)


def command(out, one, two, *flags):
    return [
        *("latency", "--out", str(out), "--base-url", one.url, "--baseline-url", two.url),
        *("--batch-sizes", "1,4", "--rounds", "3", "--answers", "4", *flags),
    ]


def test_the_ratios_are_those_of_the_ways(solutions, tmp_path):
    log = []
    speeds = {"parallel": 1, "alone": 2, "plain": 3}
    first = Paced(solutions, log, ("parallel", speeds), cold=1)
    second = Paced(solutions, log, ("plain", speeds))
    with Flushing(first) as one, Flushing(second) as two:
        assert main(command(tmp_path, one, two)) == 0
        asked = len(log)
        assert main(command(tmp_path, one, two)) == 0
        assert len(log) == asked
        # Each block begins with an empty cache.
        assert len(one.flushes) >= 2 * 2 * 3 and len(two.flushes) >= 2 * 3
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["servers"]["parallel"] == {"device": "cpu", "dtype": "float32"}
    found = results["latency"]
    assert found["caches_emptied"] is True
    small, large = found["sizes"]
    assert [size["batch_size"] for size in found["sizes"]] == [1, 4]
    for size, answers in ((small, 4), (large, 8)):
        assert {way: one["answers"] for way, one in size["ways"].items()} == dict.fromkeys(
            found["ways"], 3 * answers
        )
        for way, ratio in (("one at a time", 2), ("sequential", 3)):
            one = size["ratios"][way]
            assert one["pairs"] == one["same_text"] == 3 * answers
            for name in ("seconds", "seconds_per_token"):
                assert 1 + 0.25 * (ratio - 1) < one[name]["p50"] < 1.4 * ratio
        for one in size["ways"].values():
            assert one["right"] == one["answers"] and one["failed"] == one["cut"] == 0
        # A warm-up answer of nearly two seconds is in none of the figures.
        assert size["ways"]["parallel"]["seconds"]["p99"] < 1
    fast = small["ways"]["parallel"]
    assert fast["seconds"]["p50"] > 6 * TICK
    assert 2 * TICK < fast["ttft"]["p50"] < 0.8 * fast["seconds"]["p50"]
    assert fast["seconds_per_token"]["p50"] == pytest.approx(fast["seconds"]["p50"] / 40)
    rate = large["ways"]["parallel"]["tokens_per_second"]["p50"]
    assert 1.5 * fast["tokens_per_second"]["p50"] < rate
    # Batch size 1: a warm-up of one answer each, then blocks of four, first to last in turn.
    blocks = [log[3 + 4 * i : 7 + 4 * i] for i in range(9)]
    assert log[:3] == ["parallel", "alone", "plain"]
    assert all(len(set(block)) == 1 for block in blocks)
    order = [block[0] for block in blocks]
    assert order == [
        *("parallel", "alone", "plain"),
        *("alone", "plain", "parallel"),
        *("plain", "parallel", "alone"),
    ]
    text = (tmp_path / "report.md").read_text()
    assert "## sequential ÷ parallel" in text and "emptied before each block" in text
    rows = [line for line in text.splitlines() if line.startswith("| 2 | ")]
    assert [row.split(" | ")[1:4] for row in rows] == [
        *(["1", "12", "12"], ["4", "24", "24"]) * 2,
    ]
    assert (tmp_path / "latency.svg").stat().st_size > 10000


def block(way, number, seconds, **changes):
    """Answers that take these seconds, 10 tokens each; the block takes as long as the longest."""
    answers = [
        {
            "turn": turn,
            "place": turn,
            "seconds": one,
            "ttft": one / 10,
            "tokens": 10,
            "finish": "stop",
            "right": True,
            "structure": None,
            "digest": str(turn),
            **changes.get(str(turn), {}),
        }
        for turn, one in enumerate(seconds)
    ]
    wall = max(seconds)
    return {"batch_size": 2, "round": number, "way": way, "wall": wall, "answers": answers}


def test_the_figures_are_those_of_the_times():
    plan = {"ways": ["parallel", "sequential"], "batch_sizes": [2]}
    # Cut and failed answers are in no pair, an answer of another length has its own tokens.
    blocks = [
        block("parallel", 0, [1.0, 2.0, 4.0]),
        block("sequential", 0, [3.0, 2.0, 4.0], **{"2": {"finish": "length"}}),
        block("parallel", 1, [1.0, 2.0, 4.0], **{"0": {"error": "500"}}),
        block("sequential", 1, [9.0, 8.0, 4.0], **{"1": {"tokens": 20, "digest": "x"}}),
    ]
    found = summarise_timings(plan, blocks)
    (size,) = found["sizes"]
    ratio = size["ratios"]["sequential"]
    assert size["rounds"] == 2 and ratio["pairs"] == 4 and ratio["same_text"] == 3
    # 3 and 1 in the first round, 4 and 1 in the second; by the token 2 instead of 4.
    assert ratio["seconds"]["p50"] == pytest.approx(2) and ratio["seconds"]["p75"] == 3.25
    assert ratio["seconds_per_token"]["p50"] == pytest.approx(1.5)
    assert ratio["wall"]["p50"] == pytest.approx(1)  # of the round in which all answered
    assert ratio["by_branches"] == {}  # nobody tells structure
    way = size["ways"]["parallel"]
    assert (way["answers"], way["failed"], way["cut"], way["right"]) == (5, 1, 0, 5)
    assert way["seconds"]["p50"] == 2 and way["seconds_per_token"]["p50"] == pytest.approx(0.2)
    assert way["tokens_per_second"]["mean"] == pytest.approx((30 / 4 + 20 / 4) / 2)
    assert way["answers_per_second"]["mean"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert size["ways"]["sequential"]["cut"] == 1


def test_the_ratio_by_the_branches_that_the_first_way_opened():
    def opened(branches, blocks=1):
        structure = {**STRUCTURE, "blocks": blocks, "branches": branches}
        return {"structure": {**structure, "degree_of_parallelism": branches or 1}}

    told = {"0": opened(2), "1": opened(10), "2": opened(2), "3": opened(4, 2), "4": opened(0, 0)}
    # What the other way opens makes no difference.
    other = {str(turn): {"structure": STRUCTURE, "right": turn % 2 == 0} for turn in range(5)}
    blocks = [
        block("parallel", 0, [1.0, 2.0, 4.0, 5.0, 1.0], **told),
        block("sequential", 0, [3.0, 8.0, 4.0, 5.0, 0.5], **other),
        block("parallel", 1, [1.0, 2.0, 4.0, 5.0, 1.0], **told),
        block("sequential", 1, [2.0, 6.0, 8.0, 5.0, 0.5], **{**other, "1": {"finish": "length"}}),
    ]
    plan = {"ways": ["parallel", "sequential"], "batch_sizes": [2]}
    (size,) = summarise_timings(plan, blocks)["sizes"]
    found = size["ratios"]["sequential"]["by_branches"]
    assert list(found) == ["0", "2", "10", "several blocks"]
    assert {name: one["pairs"] for name, one in found.items()} == {
        "0": 2,
        "2": 4,
        "10": 1,
        "several blocks": 2,
    }
    two = found["2"]
    assert two["seconds"]["p50"] == pytest.approx(2) and two["seconds"]["p25"] == 1.75
    assert two["first"]["seconds"]["p50"] == 2.5 and two["other"]["seconds"]["p50"] == 3.5
    assert (two["first"]["right"], two["other"]["right"], two["same_text"]) == (4, 4, 4)
    assert two["first"]["tokens"]["p50"] == 10 and two["degree_of_parallelism"] == 2
    assert found["10"]["seconds"]["p50"] == pytest.approx(4)
    assert found["10"]["other"]["right"] == 0
    assert found["0"]["seconds"]["mean"] == 0.5
    assert found["several blocks"]["seconds"]["mean"] == 1


def test_only_the_plain_way_against_an_endpoint_that_fails_at_times(solutions, tmp_path):
    def script(body, times):
        if question(body) == list(solutions)[1]:
            return Response(400, b"no")
        return Said(solutions[question(body)], "length" if len(known.bodies) % 2 else "stop")

    known = Known(script)
    with known.serve() as server:
        code = main(
            [
                *("latency", "--out", str(tmp_path), "--base-url", server.url, "--limit", "4"),
                *("--batch-sizes", "2", "--rounds", "1", "--answers", "4", "--no-one-at-a-time"),
            ]
        )
    assert code == 0
    found = json.loads((tmp_path / "results.json").read_text())["latency"]
    (size,) = found["sizes"]
    assert size["ways"]["parallel"]["failed"] == 1 and size["ways"]["parallel"]["answers"] == 3
    assert found["caches_emptied"] is False and size["ratios"] == {}
    assert size["ways"]["parallel"]["degree_of_parallelism"] is None
    text = (tmp_path / "report.md").read_text()
    assert "1 of 4 answers failed" in text and "prefix caches not emptied" in text


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--batch-sizes", "0"], "batch_sizes: needs one or more"),
        (["--batch-sizes", "2,2"], "batch_sizes: a number stands there twice"),
        (["--rounds", "0"], "rounds: 0 is out of range"),
    ],
)
def test_what_is_wrong_is_one_line(flags, said, tmp_path, capsys):
    assert main(["latency", "--out", str(tmp_path), *flags]) == 2
    assert f"error: {said}" in capsys.readouterr().err
