"""What an image's health check runs, and what Kubernetes asks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from server import Server

from .tools import DOCKER

pytestmark = pytest.mark.server
DOCKERFILES = sorted(DOCKER.glob("Dockerfile*"))


def health_check(dockerfile: Path, port: int) -> int:
    """Run the command of `HEALTHCHECK`, against another port; returns its exit code."""
    (found,) = re.findall(r"^HEALTHCHECK.*\\\n\s+CMD (\[.*\])$", dockerfile.read_text(), re.M)
    python, *arguments = json.loads(found)
    assert python == "python3" and ":30000/" in arguments[-1]
    arguments[-1] = arguments[-1].replace(":30000/", f":{port}/")
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_images_health_check_tells_a_server_from_none(server: Server, dockerfile: Path) -> None:
    assert health_check(dockerfile, server.port) == 0
    assert health_check(dockerfile, 1) != 0


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_the_image_serves_where_its_health_check_asks(dockerfile: Path) -> None:
    (found,) = re.findall(r"^ENTRYPOINT (\[.*\])$", dockerfile.read_text(), re.M)
    assert json.loads(found)[1:] == (
        "-m sglang_multiverse.launch_server --host 0.0.0.0 --port 30000 --enable-metrics".split()
    )
    assert re.search(r"^EXPOSE 30000$", dockerfile.read_text(), re.M)


def test_a_health_check_takes_longer_than_kubernetes_waits_by_default(server: Server) -> None:
    """Why the manifests set `timeoutSeconds`."""
    answer = server.http.get("/health_generate")
    answer.raise_for_status()
    assert answer.elapsed.total_seconds() > 1
