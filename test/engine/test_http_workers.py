"""Several HTTP processes (`--tokenizer-worker-num`): each has the hooks, and gets its answers."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from asking import check_idle
from models import problems
from server import Server

pytestmark = pytest.mark.server("--tokenizer-worker-num", "2")


def ask(server: Server, seed: int, **fields: Any) -> Any:
    problem = problems.generate(seed, "held-out", "nested")
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": problem.prompt}],
        "temperature": 0,
        "max_tokens": 400,
        **fields,
    }
    return server.http.post("/v1/chat/completions", json=body, headers={"Connection": "close"})


def worked(server: Server) -> list[float]:
    """Seconds of CPU that each worker has used."""
    pids = re.findall(r"multi-tokenizer worker process (\d+)", server.log)
    return [psutil.Process(int(pid)).cpu_times().user for pid in pids]


def test_each_worker_answers_with_branches_and_what_is_said_of_them(server: Server) -> None:
    before = worked(server)
    with ThreadPoolExecutor(8) as clients:
        answers = [one.json() for one in clients.map(lambda k: ask(server, k % 4), range(24))]
    for k, answer in enumerate(answers):
        choice = answer["choices"][0]
        assert choice["multiverse"]["branches"] >= 2
        assert choice["message"]["content"] == answers[k % 4]["choices"][0]["message"]["content"]
    assert len(before) == 2
    assert all(now > then for now, then in zip(worked(server), before, strict=True))
    check_idle(server)


def test_live_branches_come_through_each_worker(server: Server) -> None:
    for _ in range(6):
        answer = ask(server, 3, stream=True, multiverse={"stream": "branches"})
        events = [json.loads(e[6:]) for e in answer.text.splitlines() if e.startswith("data: {")]
        paths = {
            choice["multiverse"]["path"]
            for event in events
            for choice in event["choices"]
            if "path" in (choice.get("multiverse") or {})
        }
        assert {"", "1", "2"} <= paths


def test_a_wrong_option_is_refused_by_each_worker(server: Server) -> None:
    for _ in range(6):
        answer = ask(server, 3, multiverse={"bogus": 1})
        assert answer.status_code == 400 and "multiverse.bogus" in answer.text


def test_each_worker_has_the_page(server: Server) -> None:
    for _ in range(6):
        page = server.http.get("/playground/", headers={"Connection": "close"})
        assert page.status_code == 200 and "Content-Security-Policy" in page.headers
    config = server.http.get("/playground/config", headers={"Connection": "close"}).json()
    assert config["model"]
