"""The whole demo as a user runs it."""

from __future__ import annotations

import signal
import time
import uuid
from pathlib import Path

import pytest

from demo.runs import Ended, another_model, first_use, marked, start

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.ahead(job=first_use)
@pytest.mark.timeout(600)
def test_at_first_use_the_package_s_model_gives_the_right_answer(ahead: Ended) -> None:
    assert ahead.code == 0, ahead.said
    assert "making the bundled model" in ahead.said
    assert "right: Answer:" in ahead.said
    assert "speed against one at a time" in ahead.said
    assert not ahead.left


@pytest.mark.ahead(job=another_model)
def test_another_model_and_prompt(ahead: Ended) -> None:
    assert ahead.code == 0, ahead.said
    assert "Answer: Amy 8, Leo 3, Liz 3, Ida 8" in ahead.said
    assert "speed against one at a time" in ahead.said
    assert not ahead.left


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
