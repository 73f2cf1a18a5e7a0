"""SGLang's router in front of two servers: the turns of a conversation stay where their prefix is.

Runs where `sglang-router` is (`pip install sglang-router`); it is no dependency of ours.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from asking import Message, user, wait_until
from models import problems
from server import Server, free_port

from .tools import ROOT, tool

pytestmark = pytest.mark.slow
TURNS = 4


class Routed(NamedTuple):
    router: httpx.Client
    servers: list[Server]


def documented(port: int, servers: list[Server]) -> list[str]:
    """The command of docs/operations.md, for these addresses."""
    page = (ROOT / "docs" / "operations.md").read_text()
    start = page.index("python -m sglang_router")
    words = shlex.split(page[start : page.index("```", start)].replace("\\\n", " "))
    at = words.index("--worker-urls")
    words[at + 1 :] = [server.url for server in servers]
    words[words.index("--port") + 1] = str(port)
    return words[1:]


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    python = Path(tool("sglang-router")).parent / "python"
    with ExitStack() as stack:
        servers = [Server() for _ in range(2)]
        for server in servers:
            stack.callback(server.stop)
            server.launch()
        for server in servers:
            wait_until(lambda server=server: "The server is fired up" in server.log, 300)  # type: ignore[misc]
        port = free_port()
        log = stack.enter_context((tmp_path_factory.mktemp("router") / "log").open("w+"))
        # Its own metrics have a fixed port, which another router may have.
        command = [python, *documented(port, servers), "--prometheus-port", str(free_port())]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        stack.callback(process.wait, 30)
        stack.callback(process.terminate)
        router = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120))

        def ready() -> bool:
            assert process.poll() is None, Path(log.name).read_text()
            try:
                return router.get("/readiness").is_success
            except httpx.TransportError:
                return False

        wait_until(ready, 120)
        yield Routed(router, servers)


def count(server: Server, metric: str) -> int:
    """Chat requests, by one of SGLang's metrics of HTTP requests; each counts from its arrival."""
    named = rf'^sglang:{metric}\{{endpoint="/v1/chat/completions".*\}} (\S+)$'
    return sum(int(float(n)) for n in re.findall(named, server.http.get("/metrics").text, re.M))


def ask(routed: Routed, messages: list[Message], **more: Any) -> tuple[dict[str, Any], int]:
    """An answer, and which server gave it."""
    before = [count(server, "http_requests_total") for server in routed.servers]
    body = {"model": "default", "messages": messages, "temperature": 0, **more}
    answer = routed.router.post("/v1/chat/completions", json=body)
    answer.raise_for_status()
    after = [count(server, "http_requests_total") for server in routed.servers]
    gained = [now - then for now, then in zip(after, before, strict=True)]
    assert sorted(gained) == [0, 1]
    found: dict[str, Any] = answer.json()
    return found, gained.index(1)


def converse(routed: Routed, number: int, turns: int) -> Iterator[tuple[int, int]]:
    """For each turn of a conversation: which server answered, and how much it had cached."""
    messages = user(problems.generate(number, "held-out", "flat").prompt)
    for turn in range(turns):
        answer, place = ask(routed, messages)
        yield place, answer["usage"]["prompt_tokens_details"]["cached_tokens"]
        said = answer["choices"][0]["message"]["content"]
        another = problems.generate(100 * number + turn, "held-out", "one")
        messages = [*messages, {"role": "assistant", "content": said}, *user(another.prompt)]


def test_the_turns_of_a_conversation_reach_the_same_server(routed: Routed) -> None:
    """Both begin where the load is least; later turns go where the prefix is, load or not."""
    used: list[int] = []
    prompt = problems.generate(9, "held-out", "flat").prompt
    long = {"max_tokens": 1800, "ignore_eos": True}
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(ask_router, routed, {"messages": user(prompt), **long})

        def busy() -> list[int]:
            return [count(server, "http_requests_active") for server in routed.servers]

        wait_until(lambda: sum(busy()) == 1)
        at_work = busy().index(1)
        talk = converse(routed, 1, TURNS)
        used.append(next(talk)[0])
        assert used == [1 - at_work]  # the other one
        other.result(120)
    for place, cached in talk:  # now both are idle
        used.append(place)
        assert cached > 20
    assert used == [1 - at_work] * TURNS


def ask_router(routed: Routed, body: dict[str, Any]) -> None:
    answer = routed.router.post("/v1/chat/completions", json={"model": "default", **body})
    answer.raise_for_status()


def test_answers_pass_the_router_whole_and_requests_do_not(routed: Routed) -> None:
    """Its own list of fields lacks ours; docs/operations.md says what to do. Gone? Say so there."""
    messages = user(problems.generate(3, "held-out", "flat").prompt)
    answer, _ = ask(routed, messages, multiverse={"max_parallel_branches": 1})
    said = answer["choices"][0]["multiverse"]
    assert said["branches"] >= 2
    assert said["max_concurrent_branches"] >= 2
