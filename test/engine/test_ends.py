"""Families end with a time limit, and with the server."""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from asking import chat_ids, check_idle
from models import problems
from server import Server

# SGLang ends a request that has run for so many seconds; the last test ends the server.
pytestmark = pytest.mark.server(private="ends", SGLANG_REQ_RUNNING_TIMEOUT="1.5")


@pytest.fixture(scope="module")
def prompts(tiny_tokenizer: Any) -> list[list[int]]:
    kinds = ("flat", "nested", "rounds") * 4
    made = [problems.generate(i, "held-out", kind) for i, kind in enumerate(kinds)]
    return [chat_ids(problem, tiny_tokenizer) for problem in made]


def post(server: Server, ids: list[int], **params: Any) -> httpx.Response:
    sampling = {"temperature": 0, "max_new_tokens": 1200, **params}
    return server.http.post("/generate", json={"input_ids": ids, "sampling_params": sampling})


def test_a_time_limit_ends_families_wherever_they_are(
    server: Server, prompts: list[list[int]]
) -> None:
    with ThreadPoolExecutor(len(prompts)) as clients:
        answers = list(clients.map(lambda ids: post(server, ids, ignore_eos=True), prompts))
    for answer in answers:
        assert answer.status_code == 503, answer.text
        assert "timeout" in answer.text.lower()
    check_idle(server)
    assert post(server, prompts[0], max_new_tokens=40).status_code == 200


def test_a_server_told_to_stop_leaves_no_process(server: Server, prompts: list[list[int]]) -> None:
    """Last of this module: it stops the server while branches decode."""
    assert server.process is not None
    started = psutil.Process(server.process.pid).children(recursive=True)
    assert started
    with ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(post, server, ids, ignore_eos=True) for ids in prompts[:4]]
        time.sleep(0.7)
        assert not any(one.done() for one in asked)
        server.process.send_signal(signal.SIGINT)
        server.process.wait(timeout=60)
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive
