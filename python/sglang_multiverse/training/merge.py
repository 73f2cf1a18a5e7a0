"""Merge a trained adapter into its base: a model that SGLang serves.

python -m sglang_multiverse.training.merge --adapter DIR/adapter --out MODEL
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from .adapter import merged
from .base import BaseModelError


class MergeError(ValueError):
    """The folder holds no adapter of ours, or the result has no place to go."""


def merge(adapter: Path, out: Path, on_stage: Callable[[str], None] = lambda _: None) -> Path:
    """Write the merged model and its tokenizer to `out`, whole or not at all.

    The base is the one the adapter names. Weights are float32.

    Args:
        on_stage: hears what begins: loading the base, merging, writing.

    Raises:
        MergeError, BaseModelError
    """
    if out.exists():
        raise MergeError(f"out: {out} exists already")
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        base = str(config["base_model_name_or_path"])
    except (OSError, ValueError, KeyError) as error:
        raise MergeError(f"adapter: {adapter} holds no adapter that names its base") from error
    with_tags = bool(config["trainable_token_indices"])
    model, tokenizer = merged(adapter, base, with_tags=with_tags, on_stage=on_stage)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    on_stage("writing")
    model.save_pretrained(str(partial))
    tokenizer.save_pretrained(str(partial))
    partial.rename(out)
    return out


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sglang_multiverse.training.merge",
        description="Merge a trained adapter into its base.",
    )
    parser.add_argument("--adapter", type=Path, required=True, help="as training left it")
    parser.add_argument("--out", type=Path, required=True, help="a folder to make")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        print(merge(args.adapter, args.out, lambda stage: print(stage, file=sys.stderr)))
    except (MergeError, BaseModelError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
