"""Endpoints that fail, stall and break off; kills at any moment. No answer is asked for twice."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from sglang_multiverse.evaluation.__main__ import main
from sglang_multiverse.evaluation.tasks import Spec, open_task
from sglang_multiverse.stand_in import Response

from .known import Known, Said, question, sse, stream

FAST = ["--backoff", "0", "--timeout", "1.5", "--retries", "2"]


@pytest.fixture(scope="module")
def solutions():
    found = open_task(Spec("bundled", seed=6_000_000, limit=40)).problems()
    return {one.messages[-1]["content"]: one.entry.solution for one in found}


def run(url, out, limit, *flags):
    fixed = ["run", "--limit", str(limit), "--base-url", url, "--out", str(out), *FAST]
    return main([*fixed, *flags])


def read(out):
    (series,) = json.loads((out / "results.json").read_text())["series"]
    return series


def abort(solution):
    return stream(Said(solution, "abort"))


FAULTS = {
    "500": lambda solution: Response(500, b"oops"),
    "429": lambda solution: Response(429, b"{}", {"retry-after": "0"}),
    "broken off": lambda solution: stream(Said(solution), cut=2),
    "ended early": lambda solution: Response(
        events=[(0.0, sse({"choices": [{"delta": {"content": "Answer"}}]}))]
    ),
    "error in the stream": lambda solution: Response(events=[(0.0, sse({"error": {"code": 500}}))]),
    "aborted": abort,
    "stalled": lambda solution: Response(events=[(0.0, sse({"choices": []})), (5.0, b"")]),
    "comments only": lambda solution: Response(events=[(0.15, b": ping\n\n")] * 20),
    "no JSON": lambda solution: Response(events=[(0.0, b"data: {oops\n\n")]),
    "no completion": lambda solution: Response(events=[(0.0, b"data: [1]\n\n")]),
    "no body": lambda solution: Response(200, b""),
}


def test_faults_are_asked_again_and_then_counted(solutions, tmp_path):
    """Each fault hits one problem once and one always; the accuracy is over what is left."""
    asked = list(solutions)
    once, always = asked[: len(FAULTS)], asked[len(FAULTS) : 2 * len(FAULTS)]
    total = 2 * len(FAULTS) + 2

    def script(body, times):
        text = question(body)
        for some, most in ((once, 1), (always, 99)):
            if text in some and times < most:
                return list(FAULTS.values())[some.index(text)](solutions[text])
        # One whose answer takes longer than the time-out, but is never silent for that long.
        return stream(Said(solutions[text]), wait=0.3 if text == asked[total - 1] else 0)

    def counts():
        found = {question(json.loads(body)): times for body, times in known.asked.items()}
        return [found[text] for text in asked[:total]]

    known = Known(script)
    with known.serve() as server:
        assert run(server.url, tmp_path, total) == 1
        found, bad = read(tmp_path), len(FAULTS)
        assert (found["answered"], found["failed"], found["right"]) == (bad + 2, bad, bad + 2)
        assert found["pass_at_1"]["value"] == 1.0 and found["pass_at_1"]["problems"] == bad + 2
        share = found["pass_at_1_if_failed_are_wrong"]["value"]
        assert share == pytest.approx((bad + 2) / total)
        assert counts() == [2] * bad + [3] * bad + [1, 1]
        assert f"{bad} answers failed" in (tmp_path / "report.md").read_text()
        # A failed one is not asked for again, unless it is wished.
        assert run(server.url, tmp_path, total) == 1
        assert counts() == [2] * bad + [3] * bad + [1, 1]
        known.script = lambda body, times: Said(solutions[question(body)])
        assert run(server.url, tmp_path, total, "--retry-failed") == 0
    assert counts() == [2] * bad + [4] * bad + [1, 1]
    assert read(tmp_path)["answered"] == total


def test_a_refused_request_fails_at_once(solutions, tmp_path):
    known = Known(lambda body, times: Response(400, b'{"message": "too long"}'))
    with known.serve() as server:
        assert run(server.url, tmp_path, 2) == 1
    assert set(known.asked.values()) == {1}
    assert "refused: 400" in str(read(tmp_path)["why_failed"])
    assert read(tmp_path)["pass_at_1"]["value"] is None


def test_a_wrong_key_ends_the_run(solutions, tmp_path, capsys):
    known = Known(lambda body, times: Response(401, b"who are you?"))
    with known.serve() as server:
        assert run(server.url, tmp_path, 8) == 2
    assert "answers 401: who are you?" in capsys.readouterr().err


def test_an_endpoint_that_goes_away_leaves_no_failed_answers(solutions, tmp_path, capsys):
    known = Known(lambda body, times: Said(solutions[question(body)]))
    with known.serve() as server:
        assert run(server.url, tmp_path, 3) == 0
    assert run(server.url, tmp_path, 6, "--model", "known") == 2
    assert "cannot be reached" in capsys.readouterr().err
    with known.serve() as server:
        assert run(server.url, tmp_path, 6) == 0
    assert set(known.asked.values()) == {1} and read(tmp_path)["answered"] == 6


def test_one_that_dies_in_mid_run(solutions, tmp_path, capsys):
    """Not a mass of failed answers, but an end from which the same command goes on."""
    known = Known(lambda body, times: Said(solutions[question(body)]))
    server = known.serve()

    async def dying(body):
        if len(known.finished) >= 3:
            server._server.close()
            await asyncio.sleep(0.01)
            return Response(events=[], cut=0)
        return await Known.respond(known, body)

    server._respond = dying
    with server:
        code = run(server.url, tmp_path, 10, "--concurrency", "1")
    assert code == 2 and "cannot be reached" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 1
    found = read(tmp_path)
    assert (found["answered"], found["failed"], found["missing"]) == (3, 0, 7)
    assert "7 of 10 answers were never asked for" in (tmp_path / "report.md").read_text()


def run_in_child(arguments):
    os.setsid()
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        os._exit(main(arguments))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_at_random_moments_it_goes_on(how, solutions, tmp_path):
    """The records are those of an undisturbed run; only what was in flight is asked for again."""
    rng, concurrency = random.Random(how), 4
    known = Known(lambda body, times: Said(solutions[question(body)]), wait=0.05)
    context = multiprocessing.get_context("fork")
    kills = 0
    with known.serve() as server:
        arguments = [
            *("run", "--limit", "40", "--base-url", server.url, "--out", str(tmp_path / "killed")),
            *("--concurrency", str(concurrency)),
        ]
        for _ in range(4):
            before = sum(known.finished.values())
            child = context.Process(target=run_in_child, args=(arguments,))
            child.start()
            end = time.monotonic() + 30
            # Wait until it asks, then strike somewhere in the next few answers.
            while (
                child.is_alive()
                and sum(known.finished.values()) == before
                and time.monotonic() < end
            ):
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.3))
            if child.is_alive():
                os.kill(child.pid, how)
                kills += 1
            child.join(30)
            if child.exitcode == 0:
                break
        assert main(arguments) == 0
        again = Counter(known.finished)
        assert main([*arguments[:6], str(tmp_path / "whole")]) == 0
    assert kills >= 2
    # Each kill costs at most the answers in flight.
    assert sum(count - 1 for count in again.values()) <= kills * concurrency
    killed, whole = read(tmp_path / "killed"), read(tmp_path / "whole")
    for found in (killed, whole):
        assert (found["answered"], found["right"], found["missing"]) == (40, 40, 0)
    for name in ("about", "pass_at_1", "groups"):
        assert killed[name] == whole[name]
