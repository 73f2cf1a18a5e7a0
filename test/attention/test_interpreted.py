"""The backend's parity suite, in a process where Triton interprets; see `parity/conftest.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_interpreted() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--durations=5", "parity"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    ended = subprocess.run(
        command, cwd=HERE, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
