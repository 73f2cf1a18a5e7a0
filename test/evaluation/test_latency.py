"""Ways of known speeds: their ratios come out, warm-ups do not, and the ways take turns."""

from __future__ import annotations

import json

import pytest

from sglang_multiverse.evaluation.__main__ import main
from sglang_multiverse.evaluation.tasks import Spec, open_task
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
                assert 0.65 * ratio < one[name]["p50"] < 1.35 * ratio
        for one in size["ways"].values():
            assert one["right"] == one["answers"] and one["failed"] == one["cut"] == 0
        # A warm-up answer of nearly two seconds is in none of the figures.
        assert size["ways"]["parallel"]["seconds"]["p99"] < 1
    fast = small["ways"]["parallel"]
    assert 6 * TICK < fast["seconds"]["p50"] < 12 * TICK
    assert 2 * TICK < fast["ttft"]["p50"] < 0.7 * fast["seconds"]["p50"]
    assert fast["seconds_per_token"]["p50"] == pytest.approx(fast["seconds"]["p50"] / 40)
    rate = large["ways"]["parallel"]["tokens_per_second"]["p50"]
    assert 2 * fast["tokens_per_second"]["p50"] < rate
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
    assert (tmp_path / "latency.svg").stat().st_size > 10000


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
        (["--samples", "2", "--temperature", "1"], "samples: latency asks each problem once"),
    ],
)
def test_what_is_wrong_is_one_line(flags, said, tmp_path, capsys):
    assert main(["latency", "--out", str(tmp_path), *flags]) == 2
    assert f"error: {said}" in capsys.readouterr().err
