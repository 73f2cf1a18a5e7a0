"""What a run needs to go on as if it had not stopped; on disk whole or not at all."""

from __future__ import annotations

import json
import os
import random
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

STATE = "state.pt"
SHARDS = "state"


class CheckpointError(ValueError):
    """A checkpoint that another run wrote."""


@dataclass(slots=True)
class Progress:
    """How far a run is.

    Attributes:
        step: optimizer steps done.
        number, row: the pass at hand, and the rows of it that were read.
        tokens, learned: trained on so far; the latter carry loss.
        seconds: of training.
    """

    step: int = 0
    number: int = 0
    row: int = 0
    tokens: int = 0
    learned: int = 0
    seconds: float = 0.0


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name, in the module's order."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def save_checkpoint(
    folder: Path,
    progress: Progress,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
) -> None:
    """Write `state.pt` beside its place and move it there, so that a kill leaves the old one."""
    state = {
        "progress": asdict(progress),
        "parameters": {name: p.detach() for name, p in trained(module).items()},
        "optimizer": optimizer.state_dict(),
        "torch_rng": torch.get_rng_state(),
        "python_rng": random.getstate(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "identity": identity,
    }
    partial = folder / f"{STATE}.partial"
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / STATE)


def load_checkpoint(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    identity: dict[str, Any],
) -> Progress | None:
    """Put a run back to where its last checkpoint was; `None` if it has none.

    Raises:
        CheckpointError: it is of a run with other settings or data.
    """
    path = folder / STATE
    if not path.exists():
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)
    _check(path, state["identity"], identity)
    with torch.no_grad():
        for name, parameter in trained(module).items():
            parameter.copy_(state["parameters"][name])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["torch_rng"])
    random.setstate(state["python_rng"])
    if state["cuda_rng"]:
        torch.cuda.set_rng_state_all(state["cuda_rng"])
    return Progress(**state["progress"])


def save_sharded(
    folder: Path, progress: Progress, accelerator: Any, identity: dict[str, Any]
) -> None:
    """The same for weights sharded over processes (FSDP), by accelerate. Not run so far."""
    target, partial = folder / SHARDS, folder / f"{SHARDS}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        record = {"progress": asdict(progress), "identity": identity}
        (partial / "progress.json").write_text(json.dumps(record), encoding="utf-8")
        # A kill between the two leaves the new one under its partial name, whole.
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    accelerator.wait_for_everyone()


def load_sharded(folder: Path, accelerator: Any, identity: dict[str, Any]) -> Progress | None:
    """The counterpart of `save_sharded`."""
    for path in (folder / SHARDS, folder / f"{SHARDS}.partial"):
        if (path / "progress.json").exists():
            record = json.loads((path / "progress.json").read_text(encoding="utf-8"))
            _check(path, record["identity"], identity)
            accelerator.load_state(str(path))
            return Progress(**record["progress"])
    return None


def _check(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    differ = [key for key, value in wanted.items() if found.get(key) != value]
    if differ:
        raise CheckpointError(
            f"resume: {path} is of a run with another {', '.join(differ)}; "
            "give another out, or resume = false to start afresh"
        )
