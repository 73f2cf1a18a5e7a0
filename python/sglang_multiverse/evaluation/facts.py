"""What a report says of how it came about: versions, machine, command."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PROG = "python -m sglang_multiverse.evaluation"
_PACKAGES = (
    *("sglang-multiverse", "sglang", "torch", "transformers", "numpy"),
    *("reasoning_gym", "sgl-eval", "math-verify", "datasets", "matplotlib"),
)


def describe() -> dict[str, Any]:
    """The machine that asks, which need not be the one that serves."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        # Other work on the machine shows here; compare it with the number of cores.
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def command(argv: Sequence[str]) -> str:
    """As it was typed, less the places of this machine."""
    shown = [Path(word).name if Path(word).is_absolute() else word for word in argv]
    return f"{PROG} {shlex.join(shown)}"
