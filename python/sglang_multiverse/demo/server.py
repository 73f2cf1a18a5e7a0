"""Start a server for the demo, and never leave it behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_START_SECONDS = 600.0
_STOP_SECONDS = 10.0
_KILL_SECONDS = 10.0  # how long the system may take to end what was killed
# What SGLang logs when a part of its start begins; only for show.
_STAGES = (
    ("Load weight begin", "loading the model"),
    ("Load weight end", "setting up the KV cache"),
    ("Uvicorn running", "warming up"),
)


class ServerError(RuntimeError):
    """The server did not start, or died; the message ends with its log."""


class Server:
    """`python -m sglang_multiverse.launch_server` on a free port, in a process group of its own.

    A context manager: inside it the server answers, after it no process is left.
    """

    def __init__(self, model: Path | str, flags: Sequence[str] = ()) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [
            sys.executable,
            *("-m", "sglang_multiverse.launch_server", "--model-path", str(model)),
            *("--host", "127.0.0.1", "--port", str(self.port), "--sleep-on-idle"),
            # One request at a time needs little; the default pool is most of the memory.
            *("--max-total-tokens", "16384", *flags),
        ]
        self.process: subprocess.Popen[bytes] | None = None
        log, name = tempfile.mkstemp(prefix="multiverse-demo-", suffix=".log")
        os.close(log)
        self.log_path = Path(name)

    def __enter__(self) -> Server:
        try:
            with _signals_later(), self.log_path.open("wb") as log:
                # Its own session: Ctrl-C reaches only the demo, which then stops the server.
                self.process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except BaseException:  # a signal that came just then; nobody would call __exit__
            self.__exit__()
            raise
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()
        self.log_path.unlink(missing_ok=True)

    def wait(self, on_stage: Callable[[str], None]) -> None:
        """Until it answers; `on_stage` hears several times a second what it is doing.

        Raises:
            ServerError: it ended, or takes too long.
        """
        deadline = time.monotonic() + _START_SECONDS
        on_stage("importing SGLang")
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                raise ServerError(f"the server ended while starting\n{self._tail}")
            if self._healthy():
                return
            log = self._log
            for line, stage in _STAGES:
                if line in log:
                    on_stage(stage)
            time.sleep(0.2)
        raise ServerError(f"the server did not start in {_START_SECONDS:.0f} s\n{self._tail}")

    def stop(self) -> None:
        """Ask the process group to end, then make it."""
        if self.process is None:
            return
        with _signals_later():
            # SIGINT: on SIGTERM SGLang looks up only every few seconds.
            for sign, seconds in ((signal.SIGINT, _STOP_SECONDS), (signal.SIGKILL, _KILL_SECONDS)):
                try:
                    os.killpg(self.process.pid, sign)
                except ProcessLookupError:
                    break
                _wait_for_group(self.process, seconds)

    def _healthy(self) -> bool:
        try:
            # It answers 503 until the warm-up is over; then it generates one token.
            urllib.request.urlopen(f"{self.url}/health", timeout=10).close()
        except OSError:
            return False
        return True

    @property
    def _log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def _tail(self) -> str:
        return "\n".join(line[:400] for line in self._log.splitlines()[-25:])


@contextlib.contextmanager
def _signals_later() -> Iterator[None]:
    """Whoever is impatient must not interrupt what keeps track of the server or ends it.

    Python handlers, not `SIG_IGN` or a mask: a new process would inherit those.
    """
    came: list[int] = []
    before = {
        sign: signal.signal(sign, lambda number, _: came.append(number))
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
    for number in came[:1]:
        signal.raise_signal(number)


def _wait_for_group(leader: subprocess.Popen[bytes], seconds: float) -> None:
    """Until no process of the group is left, or the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        leader.poll()  # a leader that has ended counts as a member until it is reaped
        try:
            os.killpg(leader.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
