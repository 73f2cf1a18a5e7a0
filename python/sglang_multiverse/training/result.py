"""What a finished run leaves: the adapter or model, the tokenizer, and how it came to be."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from .adapter import ADAPTER, RECORD, save_adapter
from .checkpoint import Progress
from .config import TrainConfig
from .report import machine


def save_result(
    folder: Path,
    model: Any,
    tokenizer: Any,
    config: TrainConfig,
    progress: Progress,
    facts: dict[str, Any],
    *,
    state: dict[str, Any] | None = None,
) -> Path:
    """Write `adapter/` or `model/`, and `training.json`.

    Args:
        state: the gathered weights where `model` holds a shard of them.

    Returns:
        The folder of the weights.
    """
    name = ADAPTER if config.method == "lora" else "model"
    target, partial = folder / name, folder / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    if config.method == "lora":
        model.peft_config["default"].base_model_name_or_path = config.base
        save_adapter(model, partial, state)
    else:
        model.save_pretrained(str(partial), state_dict=state)
    tokenizer.save_pretrained(str(partial))
    # A rename cannot replace a folder that holds something.
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    record = {
        "command": ["python", "-m", "sglang_multiverse.training", *sys.argv[1:]],
        "config": config.plain,
        "seed": config.seed,
        "steps": progress.step,
        "tokens": progress.tokens,
        "learned_tokens": progress.learned,
        "minutes": round(progress.seconds / 60, 2),
        "machine": machine(),
        **facts,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return target
