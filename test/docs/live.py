"""The tutorial's server, started by the tutorial's own command; how blocks are run beside it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from docs.blocks import PYTHON, ROOT, SHELL, Block, blocks_of
from server import free_port

TUTORIAL = "docs/tutorial.md"
_PORT = "30000"  # of the text; the server gets a free one in its place, the only change made
_START_SECONDS = 600
_READY = "The server is fired up"
# What is linked into a page's folder, so that commands find the checkout and leave nothing in it.
_LINKED = ("Makefile", "python", "benchmark", "kernels", "scripts", "test", ".venv")
# `make env` has been done: a checkout of links is not to be linked to the environment itself.
_PRELUDE = 'make() { command make -o env "$@"; }\n'


@dataclass(frozen=True)
class Live:
    """A server that runs; its log grows at `log`."""

    port: str
    log: Path
    process: subprocess.Popen[bytes]

    def start(self, block: Block, folder: Path, stdout: Path) -> subprocess.Popen[bytes]:
        return start(block, folder, stdout, self.port)


@dataclass(frozen=True)
class TutorialServer:
    """The job that starts it."""

    def __call__(self, folder: Path, stack: ExitStack) -> Live:
        block = next(block for block in blocks_of(TUTORIAL) if block.mark == "serves")
        port = str(free_port())
        log = folder / "server.log"
        process = start(block, checkout(folder / "checkout"), log, port)
        stack.callback(stop, process)
        deadline = time.monotonic() + _START_SECONDS
        while _READY not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-4000:]
                raise RuntimeError(f"{block}: no server ({process.poll()})\n{tail}")
            time.sleep(0.25)
        return Live(port, log, process)


def checkout(folder: Path) -> Path:
    """A folder that looks like the checkout and is not."""
    folder.mkdir()
    for name in _LINKED:
        (folder / name).symlink_to(ROOT / name)
    return folder


def start(block: Block, folder: Path, stdout: Path, port: str) -> subprocess.Popen[bytes]:
    """Begin to run a block, in a process group of its own; all that it says goes to `stdout`."""
    text = block.text.replace(_PORT, port)
    if block.language == SHELL:
        command = [shutil.which("bash") or "bash", "-euo", "pipefail", "-c", _PRELUDE + text]
    else:
        assert block.language == PYTHON
        command = [sys.executable, "-c", text]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    env = {**os.environ, "PATH": path, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    # pytest's own, and `make`'s when it runs pytest, mean nothing to what is run here.
    for name in ("ARGS", "MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS"):
        env.pop(name, None)
    with stdout.open("wb") as out:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a block's processes, all of them."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
