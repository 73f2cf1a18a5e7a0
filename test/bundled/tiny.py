"""A bundle as small as the tests' model, which is its base.

As a script, `tiny.py BUNDLE CACHE BASE [STAGE [MERGE]]` makes it as a user's process would,
saying each stage, and stops for good at STAGE. If that never comes it prints the path. MERGE
is `fake`, or a program that is run in the place of Python.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from sglang_multiverse.bundled import cache
from sglang_multiverse.bundled.manifest import ADAPTER, Base, Manifest, checksum, checksums
from sglang_multiverse.training.packaged import BaseModelError

NAME = "tiny"
SCALE = 2.0
TARGET = "model.layers.0.self_attn.q_proj.weight"


def make_bundle(folder: Path, base: Path) -> Path:
    """An adapter with random weights on one kind of matrix and one embedding row, in bf16."""
    import torch
    from peft import LoraConfig, get_peft_model

    from sglang_multiverse.bundled.pack import _halved, _save
    from sglang_multiverse.training.adapter import save_adapter
    from sglang_multiverse.training.base import load_base

    torch.manual_seed(0)
    model = load_base(str(base)).model
    settings = LoraConfig(
        r=4,
        lora_alpha=4 * SCALE,
        target_modules=["q_proj"],
        trainable_token_indices={"embed_tokens": [5]},
        init_lora_weights=False,
    )
    adapted: Any = get_peft_model(model, settings)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapter = folder / ADAPTER
    save_adapter(adapted, adapter)
    _save(_halved(adapter / "adapter_model.safetensors"), adapter / "adapter_model.safetensors")
    weights = checksum(base / "model.safetensors")
    Manifest(NAME, Base(str(base), "tiny-base==1", weights), checksums(adapter)).write(folder)
    return folder


def fake_merge(adapter: Path, out: Path, on_progress: cache.Progress, lock: int) -> None:
    """What a merge says and leaves, at once."""
    for stage, share in cache._SHARES.items():
        on_progress(stage, share)
    out.mkdir()
    (out / "model.safetensors").write_bytes(b"weights" * 1000)
    (out / "config.json").write_text("{}")


def find_base(name: str) -> Path:
    path = Path(name) / "model.safetensors"
    if not path.exists():
        raise BaseModelError(f"base: {name!r} is in the package 'tiny-base': pip install tiny-base")
    return path


def main(bundle: str, where: str, base: str, stop: str = "", merge: str = "") -> None:
    cache.BUNDLED[base] = None  # type: ignore[assignment]
    cache.find_gguf = find_base
    if merge == "fake":
        cache._merge = fake_merge
    elif merge:
        sys.executable = merge

    def on_progress(stage: str, share: float) -> None:
        print(stage, flush=True)
        if stage == stop:
            time.sleep(600)
        time.sleep(0.1)  # gives a second process time to come in between

    print(cache.prepare(Path(bundle), Path(where), on_progress))


if __name__ == "__main__":
    main(*sys.argv[1:])
