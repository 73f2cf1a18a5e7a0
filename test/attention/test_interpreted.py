"""The backend's parity suite, in a process where Triton interprets; see `parity/conftest.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def interpreted(_folder: Path, stack: ExitStack) -> tuple[int, str]:
    """A job: the suite's exit code and what it said."""
    suite = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "--durations=5", "parity"],
        cwd=HERE,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    stack.callback(suite.kill)
    said, _ = suite.communicate()
    return suite.returncode, said


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.ahead(job=interpreted)
def test_interpreted(ahead: tuple[int, str]) -> None:
    code, said = ahead
    assert code == 0, said
