"""Who may ask a server with keys for what, and how it goes when it is told to."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from asking import user, wait_until
from models import problems
from server import Server

pytestmark = pytest.mark.slow
PROMPT = problems.generate(3, "held-out", "flat").prompt
USER, ADMIN = "user-key", "admin-key"
ACTIVE = r'sglang:http_requests_active\{endpoint="/v1/chat/completions".*\} 1'
BODY = {"model": "m", "messages": user(PROMPT), "temperature": 0}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Ours alone: the last test ends it."""
    with Server("--api-key", USER, "--admin-api-key", ADMIN) as server:
        yield server


def status(server: Server, method: str, path: str, key: str) -> int:
    body = {"json": BODY} if path.startswith("/v1/chat") else {}
    return server.http.request(method, path, headers=bearer(key), **body).status_code  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/health", "/health_generate", "/metrics"])
def test_probes_and_prometheus_need_no_key(server: Server, path: str) -> None:
    assert status(server, "GET", path, "") == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("GET", "/v1/models"),
        ("GET", "/server_info"),
    ],
)
def test_answers_need_the_users_key(server: Server, method: str, path: str) -> None:
    assert status(server, method, path, "") == 401
    assert status(server, method, path, "wrong") == 401
    assert status(server, method, path, USER) == 200


@pytest.mark.parametrize("path", ["/flush_cache", "/abort_request", "/pause_generation"])
def test_administration_needs_the_other_key(server: Server, path: str) -> None:
    assert status(server, "POST", path, "") == 401
    assert status(server, "POST", path, USER) == 401


def test_the_admins_key_administers(server: Server) -> None:
    assert status(server, "POST", "/flush_cache", ADMIN) == 200


def test_neither_what_it_tells_nor_its_log_holds_a_key(server: Server) -> None:
    facts = server.http.get("/server_info", headers=bearer(USER))
    assert facts.json()["api_key"] == facts.json()["admin_api_key"] == "<redacted>"
    assert "--admin-api-key <redacted>" in facts.json()["launch_command"]
    assert "server_args={" in server.log
    for key in (USER, ADMIN):
        assert key not in facts.text and key not in server.log


def test_a_server_told_to_end_finishes_its_answers(server: Server) -> None:
    def ask() -> httpx.Response:
        return server.http.post("/v1/chat/completions", json=BODY, headers=bearer(USER))

    whole = ask().json()["choices"][0]
    assert whole["multiverse"]["branches"] >= 2
    admin = bearer(ADMIN)
    server.http.post("/pause_generation", json={}, headers=admin).raise_for_status()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask)  # waits: it is in progress for as long as we want
        wait_until(lambda: re.search(ACTIVE, server.http.get("/metrics").text))
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        # A check that comes before it would have to generate, which a paused server cannot.
        wait_until(lambda: "SIGTERM received" in server.log)
        wait_until(lambda: server.http.get("/health").status_code == 503)
        assert not asked.done()
        server.http.post("/continue_generation", json={}, headers=admin).raise_for_status()
        answer = asked.result(60)
    choice = answer.json()["choices"][0]
    assert choice["message"] == whole["message"] and choice["finish_reason"] == "stop"
    assert server.process.wait(90) == 0
