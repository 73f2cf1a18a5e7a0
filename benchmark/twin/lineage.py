"""How two bundles were trained, pass by pass, and whether one is the twin of the other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sglang_multiverse.bundled import Manifest

Passes = Sequence[Mapping[str, Any]]
"""The records of a model's training, in the order in which the runs continued each other."""

# Settings in which the runs of a model and of its twin may differ. Precision is one: bf16 where
# the machine has it in hardware, fp32 elsewhere; the card says which.
FREE = {
    *("attention", "precision", "data", "continue_from"),
    *("out", "threads", "log_every", "save_every", "resume"),
}


class TwinError(ValueError):
    """The two cannot be measured against each other; the message says why."""


def passes_of(bundle: Path) -> Passes:
    """Raises `TwinError` where the bundle has no record of its training."""
    path = bundle / "training.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TwinError(f"{path} cannot be read: {error}") from error
    records = [record]
    while record := record.get("continued"):
        records.append(record)
    return tuple(reversed(records))


def served_as(bundle: Path) -> str:
    """The name under which a bundle is measured: another digest, another name."""
    manifest = Manifest.read(bundle)
    return f"{manifest.name}-{manifest.digest[:12]}"


def differences(one: Passes, other: Passes) -> list[str]:
    """The settings, other than those that make a twin, in which two trainings differ."""
    if len(one) != len(other):
        return ["number of passes"]
    pairs = [(a["config"], b["config"]) for a, b in zip(one, other, strict=True)]
    return sorted(
        {name for a, b in pairs for name in {*a, *b} - FREE if a.get(name) != b.get(name)}
    )


def check_twins(bundle: Path, twin: Path) -> None:
    """Raises `TwinError` where they were trained with different settings."""
    if differ := differences(passes_of(bundle), passes_of(twin)):
        raise TwinError(f"twin: trained with other settings: {', '.join(differ)}")
