"""Start a real server for a test, and stop it with everything it started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

# Two cores that other work shares: imports alone take a minute on a bad day.
START_SECONDS = 300.0
STOP_SECONDS = 20.0


class ServerDiedError(RuntimeError):
    """The server ended, or did not answer in time; the message ends with its log."""


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def logged(self) -> str:
        return self.log.read_text(errors="replace")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path, lines: int = 60) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise ServerDiedError(f"rc {server.process.returncode}\n{_tail(server.log)}")
        try:
            # 503 until the warm-up request has been answered.
            if httpx.get(f"{server.url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise ServerDiedError(f"no answer in {START_SECONDS:.0f} s\n{_tail(server.log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    # SIGINT ends the server at once; on SIGTERM it looks up only every five seconds.
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    # It was started as a session of its own: whatever is left of it is in this group.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


@contextmanager
def serve(
    model: Path,
    *flags: str,
    log: Path,
    module: str = "sglang_multiverse.launch_server",
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """`python -m module --model-path model flags…` for as long as the block runs.

    Raises:
        ServerDiedError: it did not come up.
    """
    port = free_port()
    command = [sys.executable, "-m", module, "--model-path", str(model), "--port", str(port)]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [*command, *flags],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", log, process)
    try:
        _wait_until_ready(server)
        yield server
    finally:
        _stop(process)
