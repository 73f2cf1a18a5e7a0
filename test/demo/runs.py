"""Whole demos as a user runs them: processes of their own, each known by a mark."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from server import MODEL

MARK = "MULTIVERSE_DEMO_TEST"
# In the words that the tiny model knows.
PROMPT = (
    "Amy has 4 figs, buys 3 and buys 1. Leo has 3 figs and loses 1, and also has 4 cards, gets 3 "
    "and gives away 6. Liz has 9 shells, gives away 4 and gives away 2. Ida has 6 coins, gives "
    "away 5, gets 2 and finds 5.\nHow many does each have?"
)


class Ended(NamedTuple):
    code: int
    said: str
    left: list[psutil.Process]
    folder: Path


def start(mark: str, log: Path, *flags: str, **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sglang_multiverse.demo", "--repeats", "1", *flags]
    with log.open("wb") as out:
        return subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **env, MARK: mark},
        )


def marked(mark: str) -> list[psutil.Process]:
    """Every process that got the mark from the demo, in whatever group or session."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def first_use(folder: Path, stack: ExitStack) -> Ended:
    """Without a model, and with an empty cache, which is `folder`: makes the package's own."""
    return _whole(folder, stack, 550, XDG_CACHE_HOME=str(folder))


def another_model(folder: Path, stack: ExitStack) -> Ended:
    return _whole(folder, stack, 280, "--model-path", str(MODEL), "--prompt", PROMPT)


def _whole(folder: Path, stack: ExitStack, seconds: float, *flags: str, **env: str) -> Ended:
    mark, log = uuid.uuid4().hex, folder / "log"
    stack.enter_context(_none_left(mark))
    demo = start(mark, log, *flags, **env)
    try:
        code = demo.wait(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"the demo took more than {seconds} s:\n{log.read_text()}") from error
    return Ended(code, log.read_text(), marked(mark), folder)


@contextmanager
def _none_left(mark: str) -> Iterator[None]:
    yield
    for process in marked(mark):
        process.kill()
