"""The whole demo as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.server, pytest.mark.slow]
MARK = "MULTIVERSE_DEMO_TEST"
# In the words that the tiny model knows.
PROMPT = (
    "Amy has 4 figs, buys 3 and buys 1. Leo has 3 figs and loses 1, and also has 4 cards, gets 3 "
    "and gives away 6. Liz has 9 shells, gives away 4 and gives away 2. Ida has 6 coins, gives "
    "away 5, gets 2 and finds 5.\nHow many does each have?"
)


def start(mark: str, log: Path, *flags: str, **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sglang_multiverse.demo", "--repeats", "1", *flags]
    with log.open("wb") as out:
        return subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            # One thread: whatever else runs here would make several wait for each other.
            env={"OMP_NUM_THREADS": "1", **os.environ, **env, MARK: mark},
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


def test_at_first_use_the_package_s_model_gives_the_right_answer(tmp_path: Path) -> None:
    mark, log = uuid.uuid4().hex, tmp_path / "log"
    demo = start(mark, log, XDG_CACHE_HOME=str(tmp_path))
    assert demo.wait(timeout=550) == 0, log.read_text()
    said = log.read_text()
    assert "making the bundled model" in said
    assert "right: Answer:" in said
    assert "speed against one at a time" in said
    assert not marked(mark)


def test_another_model_and_prompt(tiny_path: Path, tmp_path: Path) -> None:
    mark, log = uuid.uuid4().hex, tmp_path / "log"
    demo = start(mark, log, "--model-path", str(tiny_path), "--prompt", PROMPT)
    assert demo.wait(timeout=400) == 0, log.read_text()
    said = log.read_text()
    assert "Answer: Amy 8, Leo 3, Liz 3, Ida 8" in said
    assert "speed against one at a time" in said
    assert not marked(mark)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_starting(sign: signal.Signals, tiny_path: Path, tmp_path: Path) -> None:
    mark, log = uuid.uuid4().hex, tmp_path / "log"
    demo = start(mark, log, "--model-path", str(tiny_path))
    deadline = time.monotonic() + 60
    while len(marked(mark)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(3)  # amid the imports
    demo.send_signal(sign)
    assert demo.wait(timeout=60) == 130, log.read_text()
    assert not marked(mark)
