"""A real server for tests: started once, watched, stopped, and checked for leaks.

Run with SGLang's own pool checks on: after every step the free list, the radix
tree, the batches and the families must account for every slot, and no owned
slot may be free. A violation ends the scheduler, and with it the test.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

import forked

MODEL = Path(__file__).parent / "models" / "tiny-multiverse"
_LAUNCHER = [sys.executable, "-m", "sglang_multiverse.launch_server"]
_START_SECONDS = 300
# Of the environment, what is read after the imports.
_READ_LATE = {"SGLANG_MULTIVERSE_CPU_OVERLAP", "SGLANG_REQ_RUNNING_TIMEOUT"}


class ServerError(RuntimeError):
    """The server did not start, or died; the message ends with its log."""


class Server:
    """`python -m sglang_multiverse.launch_server` on a port of this machine, a free one by default.

    Forked from a process that holds the imports (`forked`), unless it is to have a command of its
    own, or an environment that may be read during the imports.
    """

    def __init__(
        self,
        *flags: str,
        model: Path = MODEL,
        pool: int = 16384,
        port: int | None = None,
        **env: str,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = Path(tempfile.mkstemp(prefix="server-", suffix=".log")[1])
        self.command = [
            *_LAUNCHER,
            *("--model-path", str(model), "--port", str(self.port), "--host", "127.0.0.1"),
            # Tests compare logits: not bf16, which a CPU that has it would choose.
            *("--dtype", "float32"),
            *("--max-total-tokens", str(pool), "--enable-metrics", "--enable-cache-report"),
            *flags,
        ]
        self.env = {
            **os.environ,
            # One thread: a model this small gains nothing from more, and tests run beside others.
            "OMP_NUM_THREADS": "1",
            "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "1",
            "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "1",
            "SGLANG_CHECK_KV_PAGE_INVARIANTS": "1",
            **env,
        }
        self._forks = env.keys() <= _READ_LATE
        self.process: subprocess.Popen[bytes] | forked.Forked | None = None
        self.http = httpx.Client(base_url=self.url, timeout=120)
        self._read = 0

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def new_log(self) -> str:
        """What was logged since the last call: users of one server judge what they caused."""
        with self.log_path.open("rb") as log:
            log.seek(self._read)
            new = log.read()
            self._read = log.tell()
        return new.decode(errors="replace")

    def start(self) -> Server:
        """Raises `ServerError` if the server ends, or does not answer in time.

        One that was stopped, or died, comes back at the same address.
        """
        if self.http.is_closed:
            self.http = httpx.Client(base_url=self.url, timeout=120)
        process = self.launch()
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerError(f"the server ended with {process.returncode}\n{self.tail}")
            # The warm-up request is over when this line is out; tests must not count it.
            if "The server is fired up" in self.log:
                return self
            time.sleep(0.25)
        self.stop()
        raise ServerError(f"the server did not start in {_START_SECONDS} s\n{self.tail}")

    def launch(self) -> subprocess.Popen[bytes] | forked.Forked:
        """Start the process, and wait for nothing."""
        self._read = 0
        self.log_path.write_bytes(b"")
        if self._forks and self.command[:3] == _LAUNCHER:
            self.process = forked.launch(self.command[3:], self.log_path, self.env)
            return self.process
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                start_new_session=True,
            )
        return self.process

    @property
    def tail(self) -> str:
        return "\n".join(line[:400] for line in self.log.splitlines()[-40:])

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def settle(self, seconds: float = 20) -> str:
        """After a failure: what became of the server. One that does not get idle is stopped."""
        if self.process is None or not self.alive:
            return f"died with {self.process and self.process.returncode}"
        try:
            # Answered once nothing runs or waits.
            flush = f"{self.url}/flush_cache"
            httpx.post(flush, params={"timeout": seconds}, timeout=seconds + 5).raise_for_status()
        except httpx.HTTPError:
            self.stop()
            return f"hung or was still busy after {seconds:g} s: stopped"
        return "is alive and idle"

    def stop(self) -> None:
        self.http.close()
        if self.process is None:
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *args: object) -> None:
        self.stop()

    def generate(self, prompt: str | list[int], **kwargs: Any) -> dict[str, Any]:
        """One greedy answer of `/generate`; `sampling_params` of the call are added to it."""
        params = {"temperature": 0, "max_new_tokens": 1024, **kwargs.pop("sampling_params", {})}
        key = "text" if isinstance(prompt, str) else "input_ids"
        answer = self.http.post(
            "/generate", json={key: prompt, "sampling_params": params, **kwargs}
        )
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def flush(self) -> None:
        """Empty the radix cache; waits until the server is idle, and fails if it never is."""
        answer = self.http.post("/flush_cache", params={"timeout": 30})
        answer.raise_for_status()


@dataclass(frozen=True)
class ServerJob:
    """What a shared server is started with. Tests that ask for the same get the same one.

    `private` is a name that keeps a server apart: for tests that poison or kill it.
    """

    flags: tuple[str, ...] = ()
    pool: int = 16384
    private: str = ""
    env: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, *flags: str, pool: int = 16384, private: str = "", **env: str) -> ServerJob:
        return cls(flags, pool, private, tuple(sorted(env.items())))

    def __call__(self, folder: Path, stack: ExitStack) -> Server:
        server = Server(*self.flags, pool=self.pool, **dict(self.env))
        # Before it starts, so that a start can be broken off.
        stack.callback(server.stop)
        return server.start()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
