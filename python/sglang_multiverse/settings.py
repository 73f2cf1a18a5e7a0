"""Settings as fields of a dataclass: what a command's flags are read off, and their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any


def setting(
    default: Any, help: str, *, least: float | None = None, most: float | None = None
) -> Any:
    """A dataclass field with its help and, for a number, the range allowed."""
    return field(default=default, metadata={"help": help, "least": least, "most": most})


def out_of_range(name: str, value: Any, metadata: Mapping[str, Any]) -> str:
    """What is wrong with the value of a field with this metadata; empty if nothing is."""
    least, most = metadata["least"], metadata["most"]
    # Written so that NaN fails.
    if (least is None or value >= least) and (most is None or value <= most):
        return ""
    allowed = f"at least {least}" if most is None else f"from {least} to {most}"
    return f"{name}: {value!r} is out of range; allowed: {allowed}"
