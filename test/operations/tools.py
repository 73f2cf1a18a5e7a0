"""Programs that validate what we ship; where one is missing, its test is skipped and says so."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
KUBERNETES = ROOT / "deploy" / "kubernetes"
DASHBOARD = DOCKER / "grafana" / "dashboards" / "multiverse.json"


def tool(name: str) -> str:
    """The path of a program: from the variable named like it (`kubectl`: `KUBECTL`), or `PATH`."""
    variable = name.upper().replace("-", "_")
    found = os.environ.get(variable) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is neither on PATH nor named by {variable}; see docs/operations.md")
    return found


def passes(*command: str | Path) -> str:
    """Run a program that must find nothing wrong; returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said
