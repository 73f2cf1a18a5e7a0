"""The demo never leaves a server behind, whatever kind of server it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from sglang_multiverse.demo import server as module
from sglang_multiverse.demo.server import Server, ServerError

DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
PARENT = DEAF + (
    "import subprocess, sys, time\n"
    f"subprocess.Popen([sys.executable, '-c', {DEAF + 'import time; time.sleep(600)'!r}])\n"
    "print('ready', flush=True); time.sleep(600)\n"
)
HEALTHY = (
    "import http.server, sys\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self): self.send_response(200); self.end_headers()\n"
    "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n"
)


def program(code: str) -> Server:
    server = Server("model")
    server.command = [sys.executable, "-c", code, str(server.port)]
    return server


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STOP_SECONDS", 0.3)


def members(group: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def group_of(server: Server) -> int:
    """The process group, once the program's child is in it."""
    assert server.process is not None
    while "ready" not in server._log:
        time.sleep(0.02)
    return server.process.pid


def test_it_waits_until_the_server_answers() -> None:
    stages: list[str] = []
    with program(HEALTHY) as server:
        server.wait(stages.append)
        assert server.process is not None
        pid = server.process.pid
    assert stages[0] == "importing SGLang"
    assert not members(pid)
    assert not server.log_path.exists()


def test_a_server_that_dies_is_reported_with_its_log() -> None:
    with (
        pytest.raises(ServerError, match="no such model"),
        program("import sys; sys.exit('no such model')") as server,
    ):
        server.wait(lambda stage: None)


@pytest.mark.usefixtures("_impatient")
def test_children_that_do_not_listen_are_ended_too() -> None:
    with program(PARENT) as server:
        pid = group_of(server)
        assert len(members(pid)) == 2
    assert not members(pid)


@pytest.mark.usefixtures("_impatient")
def test_a_second_interrupt_does_not_stop_the_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_group = module._wait_for_group

    def interrupted(leader: subprocess.Popen[bytes], seconds: float) -> None:
        signal.raise_signal(signal.SIGINT)
        wait_for_group(leader, seconds)

    server = program(PARENT).__enter__()
    pid = group_of(server)
    monkeypatch.setattr(module, "_wait_for_group", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.stop()
    assert not members(pid)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_amid_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    popen = subprocess.Popen

    def interrupted(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        process = popen(*args, **kwargs)
        signal.raise_signal(signal.SIGINT)
        return process

    server = program(PARENT)
    monkeypatch.setattr(module.subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        server.__enter__()
    assert server.process is not None
    assert not members(server.process.pid)
