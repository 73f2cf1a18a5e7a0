"""What the kernels compute, in a process where Triton interprets; see `arithmetic/conftest.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FILES = sorted(path.name for path in (HERE / "arithmetic").glob("test_*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_interpreted(name: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--durations=5", f"arithmetic/{name}"]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    ended = subprocess.run(
        command, cwd=HERE, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
