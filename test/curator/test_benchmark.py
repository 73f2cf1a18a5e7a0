"""The benchmark runs and says what it measured."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmark" / "curator_load.py"


@pytest.mark.slow
def test_a_small_run():
    flags = "--examples 8 --concurrency 4 --latency 0.02 --repeats 1".split()
    done = subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bare calls: " in done.stdout
    assert re.search(r"8 examples: exit code 0, .*peak memory \d+ MiB", done.stdout)
    assert "ideal 0.20 s; median " in done.stdout
