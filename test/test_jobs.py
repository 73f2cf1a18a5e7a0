"""What tests wait for is begun before, shared, and gone after them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

import jobs as module
from jobs import Jobs, ServerJob
from server import Server, ServerError


class Log:
    """Jobs that note what happens to them."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.folders: dict[str, Path] = {}

    def job(self, name: str, error: Exception | None = None) -> Any:
        def run(folder: Path, stack: ExitStack) -> str:
            self.begun.append(name)
            self.folders[name] = folder
            stack.callback(self.ended.append, name)
            if error is not None:
                raise error
            return name

        return run


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def found() -> Iterator[Jobs]:
    found = Jobs()
    yield found
    found.close()


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def test_a_job_is_begun_in_the_background_and_shared_until_its_last_user_is_done(
    found: Jobs, log: Log
) -> None:
    a, b = log.job("a"), log.job("b")
    found.begin([a, b, a])
    until(lambda: log.begun == ["a", "b"])
    assert found.get(a) == found.get(a) == found.peek(a) == "a"
    found.done(a)
    assert log.folders["a"].is_dir() and log.ended == []
    found.done(a)
    assert not log.folders["a"].exists() and log.ended == ["a"]
    found.close()
    assert log.begun == ["a", "b"] and log.ended == ["a", "b"]


def test_what_was_not_begun_runs_when_it_is_asked_for(found: Jobs, log: Log) -> None:
    a = log.job("a")
    assert found.peek(a) is None
    assert found.get(a) == "a"


def test_all_who_wait_for_it_get_its_error(found: Jobs, log: Log) -> None:
    a = log.job("a", ValueError("no"))
    found.begin([a, a])
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            found.get(a)
    assert found.peek(a) is None and log.begun == ["a"]


def test_few_servers_wait_for_their_tests(
    found: Jobs, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ServerJob, "__call__", lambda self, *_: log.begun.append(self.private))
    servers = [ServerJob.of(private=str(i)) for i in range(5)]
    last = log.job("last")
    found.begin([*servers, last])
    until(lambda: len(log.begun) == module.SERVERS_AHEAD + 1)
    time.sleep(0.1)
    assert log.begun == ["0", "1", "2"]
    found.get(servers[0])
    found.done(servers[0])
    until(lambda: log.begun == ["0", "1", "2", "3"])


def test_an_end_amid_a_job_is_no_reason_to_wait(found: Jobs, log: Log) -> None:
    stopped = threading.Event()

    def long(folder: Path, stack: ExitStack) -> None:
        stack.callback(stopped.set)
        log.begun.append("long")
        stopped.wait()

    found.begin([long, log.job("next")])
    until(lambda: log.begun == ["long"])
    found.close()
    assert stopped.is_set()
    time.sleep(0.1)
    assert log.begun == ["long"]


class Item:
    def __init__(self, name: str, fixtures: str = "", **marks: Any) -> None:
        self.name, self.fixturenames, self.marks = name, fixtures.split(), marks

    def get_closest_marker(self, name: str) -> Any:
        return self.marks.get(name)


def test_tests_are_ordered_by_what_they_wait_for(log: Log) -> None:
    mark, a = pytest.mark.server.mark, log.job("a")
    other = pytest.mark.server("--x", pool=8, NAME="v").mark
    items: Any = [
        Item("1", "server jobs", server=other),
        Item("2", "server jobs", server=mark),
        Item("3", "server", server=mark),
        Item("4"),
        Item("5", "ahead jobs", server=mark, ahead=pytest.mark.ahead(job=a).mark),
        Item("6", "own_server jobs", server=other),
        Item("7"),
        Item("8", "server jobs"),
    ]
    assert "".join(item.name for item in module.in_order(items)) == "47316285"
    assert module.job_of(items[0]) == ServerJob(("--x",), 8, "", (("NAME", "v"),))
    assert module.job_of(items[2]) is None and module.job_of(items[4]) is a


STUB = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(%d); self.end_headers()
print("The server is fired up", flush=True)
http.server.HTTPServer(("127.0.0.1", %d), Handler).serve_forever()
"""


@pytest.fixture
def stub() -> Iterator[Server]:
    with serving(200) as server:
        yield server


def serving(status: int) -> Server:
    server = Server()
    server.command = [sys.executable, "-c", STUB % (status, server.port)]
    return server


def answers(server: Server) -> bool:
    try:
        return server.http.post("/").status_code == 200
    except httpx.ConnectError:
        return False


def test_a_server_that_died_comes_back_at_its_address(stub: Server) -> None:
    until(lambda: answers(stub))
    assert "fired up" in stub.new_log() and not stub.new_log()
    assert stub.settle() == "is alive and idle"
    assert stub.process is not None
    stub.process.kill()
    stub.process.wait()
    assert stub.settle() == "died with -9"
    stub.stop()
    stub.start()
    until(lambda: answers(stub))
    assert "fired up" in stub.new_log()


def test_a_server_that_does_not_get_idle_is_stopped() -> None:
    with serving(400) as server:
        until(lambda: "fired up" in server.log)
        assert "hung" in server.settle(0.2) and not server.alive


def test_a_server_that_ends_amid_its_start_says_why() -> None:
    server = serving(200)
    server.command = [sys.executable, "-c", "raise SystemExit('no room')"]
    with pytest.raises(ServerError, match="no room"), server:
        pass
