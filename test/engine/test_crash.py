"""What goes wrong inside the server stays where it went wrong, or is loud.

Faults are injected by the plugin in `test/faults`.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from asking import chat_ids
from jobs import Jobs, server_job_of
from models import problems
from server import Server

# Loads the faults as a plugin, by the entry point in that folder.
FAULTS = str(Path(__file__).resolve().parents[1] / "faults")
PATH = os.pathsep.join(filter(None, [FAULTS, os.environ.get("PYTHONPATH")]))

pytestmark = pytest.mark.server(private="faults", PYTHONPATH=PATH)


@pytest.fixture(scope="module")
def server(jobs: Jobs, request: pytest.FixtureRequest) -> Server:
    """Each test looks at what is left by itself: the log holds the traces of the faults."""
    found: Server = jobs.get(server_job_of(request.node))
    return found


@pytest.fixture(scope="module")
def prompts(tiny_tokenizer: Any) -> list[list[int]]:
    """Prompts of flat and nested problems, answered with blocks."""
    kinds = ("flat", "nested") * 4
    made = [problems.generate(i, "held-out", kind) for i, kind in enumerate(kinds)]
    return [chat_ids(problem, tiny_tokenizer) for problem in made]


def post(server: Server, rid: str, ids: list[int], **params: Any) -> httpx.Response:
    sampling = {"temperature": 0, "max_new_tokens": 1024, **params}
    body = {"input_ids": ids, "rid": rid, "sampling_params": sampling}
    return server.http.post("/generate", json=body)


@pytest.mark.parametrize("fault", ["settle", "fork", "join", "observe", "admit", "match"])
def test_our_error_fails_one_request(server: Server, prompts: list[list[int]], fault: str) -> None:
    alone = [server.generate(ids)["output_ids"] for ids in prompts]
    rids = [f"{fault if i % 3 == 0 else 'sound'}-{time.time_ns()}" for i in range(len(prompts))]
    with ThreadPoolExecutor(len(prompts)) as clients:
        answers = list(clients.map(lambda rid, ids: post(server, rid, ids), rids, prompts))
    for rid, answer, expected in zip(rids, answers, alone, strict=True):
        if rid.startswith("sound"):
            assert answer.status_code == 200
            assert answer.json()["output_ids"] == expected
        else:
            assert answer.status_code == 500, answer.text
            assert "injected" in answer.text
    # Nothing of the failed families is left; the log holds the trace of each.
    server.flush()
    load = server.http.get("/v1/loads").json()["loads"][0]
    assert load["num_running_reqs"] == load["num_waiting_reqs"] == 0
    assert server.alive
    assert "InjectedError: injected in" in server.log
    for sign in ("pool memory leak", "leak detected"):
        assert sign not in server.log


def test_abort_of_a_family_that_waits_for_its_turn(
    server: Server, prompts: list[list[int]]
) -> None:
    """No row of it decodes, so that SGLang's own abort finds nothing to end."""
    long, held = f"long-{time.time_ns()}", f"hold-{time.time_ns()}"
    with ThreadPoolExecutor(2) as clients:
        endless = {"ignore_eos": True, "max_new_tokens": 1900}
        running = clients.submit(post, server, long, prompts[0], **endless)
        waiting = clients.submit(post, server, held, prompts[2])
        time.sleep(0.7)
        assert not running.done(), "the request that keeps the server busy is too short"
        assert not waiting.done()
        server.http.post("/abort_request", json={"rid": held})
        ended = waiting.result(timeout=20)
        assert not running.done(), "it ended with the other request, not with the abort"
        server.http.post("/abort_request", json={"rid": long})
        assert running.result(timeout=60).status_code == 200
    assert ended.json()["meta_info"]["finish_reason"]["type"] == "abort"
    server.flush()
    assert server.alive


def test_sglang_error_ends_the_server(server: Server, prompts: list[list[int]]) -> None:
    """There is no smaller unit; the server must not stay up and answer nothing."""
    assert post(server, "sound-0", prompts[0]).status_code == 200
    with pytest.raises(httpx.HTTPError):
        post(server, "step-0", prompts[0]).raise_for_status()
    assert server.process is not None
    assert server.process.wait(timeout=60) != 0
    assert "InjectedError: injected in a step" in server.log
