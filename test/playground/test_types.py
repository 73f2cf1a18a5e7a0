"""The page's JSDoc types hold: TypeScript's checker, strict, finds nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def test_the_types_hold() -> None:
    tsc = os.environ.get("TSC") or shutil.which("tsc")
    if tsc is None:
        pytest.skip("typescript is not installed: neither tsc nor the variable TSC names it")
    config = Path(__file__).with_name("jsconfig.json")
    done = subprocess.run([tsc, "-p", str(config)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
