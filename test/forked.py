"""Servers forked from a process that has SGLang imported already.

What a server imports takes eight seconds of a core, and the tests start some twenty. Here it is
done once, by a fork server of the standard library; from `launch_server.main` on a server runs
as always. Where its environment matters during the imports, it is started the usual way.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from sglang_multiverse.engine import upstream

_IMPORTED = (upstream.SCHEDULER, upstream.HTTP_SERVER)


class Forked:
    """One server. What `subprocess.Popen` has of the same names does the same here."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        assert process.pid is not None
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("a forked server", timeout or 0)
        return code

    def send_signal(self, sign: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sign)

    def kill(self) -> None:
        self._process.kill()


def launch(arguments: Sequence[str], log: Path, env: Mapping[str, str]) -> Forked:
    """`launch_server` in a session of its own. Its environment is set after the imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    process = context.Process(target=_serve, args=(list(arguments), log, dict(env)))
    process.start()
    return Forked(process)


def _serve(arguments: list[str], log: Path, env: dict[str, str]) -> None:
    os.setsid()
    with log.open("ab") as out, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        for stream in (1, 2):
            os.dup2(out.fileno(), stream)
    sys.stdin = os.fdopen(0)  # as in a process of its own: uvicorn asks for its number
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["launch_server", *arguments]
    from sglang_multiverse.launch_server import main

    main(arguments)
