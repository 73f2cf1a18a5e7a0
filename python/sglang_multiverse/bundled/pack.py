"""Put a trained adapter into the package, for maintainers.

python -m sglang_multiverse.bundled.pack --adapter DIR/adapter
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sglang_multiverse.training.packaged import BUNDLED, BaseModelError, find_gguf

from .manifest import ADAPTER, PACKAGE, Base, Manifest, checksum, checksums

NAME = "smollm2-135m-multiverse"
_CONFIG, _WEIGHTS, _TRAINING = "adapter_config.json", "adapter_model.safetensors", "training.json"
_MACHINE_PATH = re.compile(r"(?<![\w.~/\\-])(?:~?/|file:///|[A-Za-z]:\\)[\w.~-]+")


class PackError(ValueError):
    """The adapter cannot go into the package; the message says why."""


def pack(adapter: Path, bundle: Path, name: str = NAME) -> Manifest:
    """Write `adapter/` in bf16, the run's `training.json` if there is one, and the manifest.

    Args:
        adapter: as training left it, `training.json` beside it.
        bundle: the folder to write to.
        name: what the model is served as.

    Raises:
        PackError: it holds no adapter of a base in a package, or names paths of this machine.
        BaseModelError: its base is not installed.
    """
    config = _read(adapter / _CONFIG)
    base = config.get("base_model_name_or_path")
    if base not in BUNDLED:
        raise PackError(f"base: {base!r} is in no package; there is {', '.join(BUNDLED)}")
    sha256 = checksum(find_gguf(base))
    package = BUNDLED[base].package.replace("_", "-")
    tensors = _halved(adapter / _WEIGHTS)
    training = adapter.parent / _TRAINING
    record = _read(training) if training.exists() else None

    target = bundle / ADAPTER
    target.mkdir(parents=True, exist_ok=True)
    for stale in (*target.iterdir(), bundle / _TRAINING):
        stale.unlink(missing_ok=True)
    _write(target / _CONFIG, config)
    _save(tensors, target / _WEIGHTS)
    if record is not None:
        _write(bundle / _TRAINING, record)
    manifest = Manifest(
        name, Base(base, f"{package}=={version(package)}", sha256), checksums(target)
    )
    manifest.write(bundle)
    return manifest


def _read(path: Path) -> dict[str, Any]:
    """A JSON object that is fit to be published."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PackError(f"{path} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise PackError(f"{path} is no JSON object")
    for where, text in _strings(fields):
        if found := _MACHINE_PATH.search(text):
            raise PackError(
                f"{path}: {where}: {found[0]!r} is a path of a machine: make it relative"
            )
    return fields


def _strings(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, and where it stands."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _strings(part, f"{where}.{key}".lstrip("."))


def _write(path: Path, fields: dict[str, Any]) -> None:
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def _halved(path: Path) -> dict[str, Any]:
    """The tensors in bf16: half the size, and merging reads them as float32 again."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PackError(f"{path} cannot be read: {error}") from error
    return {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}


def _save(tensors: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors leaves it to its owner alone


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sglang_multiverse.bundled.pack",
        description="Put a trained adapter into the package.",
    )
    parser.add_argument("--adapter", type=Path, required=True, help="as training left it")
    parser.add_argument("--out", type=Path, default=PACKAGE, help="folder (default: this package)")
    parser.add_argument("--name", default=NAME, help=f"of the model (default: {NAME})")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        manifest = pack(args.adapter, args.out, args.name)
    except (PackError, BaseModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not (args.out / _TRAINING).exists():
        print(f"note: no {_TRAINING} beside the adapter: its record is missing", file=sys.stderr)
    print(f"{args.out}: {manifest.name}-{manifest.digest[:12]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
