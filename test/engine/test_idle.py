"""An idle server leaves the CPU alone, and is there at once when something comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from asking import check_idle
from server import Server

pytestmark = pytest.mark.server

WATCHED_SECONDS = 3.0
# A scheduler that polls takes all of a core; one that sleeps wakes once a second.
SHARE = 0.1


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        if server.http.get("/server_info").json()["device"] != "cpu":
            pytest.skip("this machine has an accelerator, and the server polls")
        yield server


def idle_share(server: Server) -> float:
    """CPU seconds a second of the server and everything it started."""
    assert server.process is not None
    root = psutil.Process(server.process.pid)
    processes = [root, *root.children(recursive=True)]

    def spent() -> float:
        return sum(sum(p.cpu_times()[:2]) for p in processes)

    before, start = spent(), time.monotonic()
    time.sleep(WATCHED_SECONDS)
    return (spent() - before) / (time.monotonic() - start)


def test_an_idle_server_leaves_the_cpu_alone(server: Server) -> None:
    server.generate("1 + 1", sampling_params={"max_new_tokens": 4})
    check_idle(server)
    assert idle_share(server) < SHARE


def test_health_and_requests_wake_it(server: Server) -> None:
    check_idle(server)
    time.sleep(1.5)  # it sleeps by now
    server.http.get("/health_generate").raise_for_status()

    def seconds() -> float:
        time.sleep(1.2)
        start = time.monotonic()
        server.generate("1 + 1", sampling_params={"max_new_tokens": 1})
        return time.monotonic() - start

    # By itself it would wake after half a second, in the mean; other tests may delay some.
    assert sorted(seconds() for _ in range(6))[3] < 0.25


def test_a_paused_server_sleeps_and_wakes(server: Server) -> None:
    server.http.post("/pause_generation", json={"mode": "retract"}).raise_for_status()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(
            server.generate, "1 + 1", sampling_params={"max_new_tokens": 4, "ignore_eos": True}
        )
        assert idle_share(server) < SHARE
        assert not waiting.done()
        server.http.post("/continue_generation", json={}).raise_for_status()
        assert waiting.result(30)["meta_info"]["completion_tokens"] == 4
    check_idle(server)
