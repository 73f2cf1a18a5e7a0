"""`python -m sglang_multiverse.training.data`: the training data and its card."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sglang_multiverse.structure import TagTable, add_tags, resolve_tags

from ..packaged import BUNDLED, find_gguf
from . import plots
from .card import TITLE, Examples, about, card
from .conversation import CHAT, KINDS, MIXED, SPLITS, Split
from .dataset import ExhaustedError, examples, write
from .families import FAMILIES
from .gym import MissingGymError
from .pieces import pieces

BOTH = "both"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = build_parser()
    args = parser.parse_args(arguments)
    wanted: dict[Split, int] = {"train": args.examples, "held-out": args.held_out}
    if args.held_out is None:
        # A set that is all held out has as many examples as were asked for.
        wanted["held-out"] = args.examples if args.split != BOTH else max(args.examples // 10, 1)
    try:
        tokenizer, tags, counted_with = _tokenizer(args.tokenizer)
        if args.plots:
            plots.require()
        made: Examples = {
            split: list(
                examples(wanted[split], args.seed, split, tokenizer, tags, args.kind, args.family)
            )
            for split in SPLITS
            if args.split in (split, BOTH)
        }
    except (ValueError, ExhaustedError, MissingGymError, plots.MissingPlotsError) as error:
        parser.error(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    for split, measured in made.items():
        write(measured, args.out / f"{split}.jsonl")
        print(
            f"{args.out / f'{split}.jsonl'}: {len(measured)} examples, "
            f"{sum(one.tokens for one in measured)} tokens"
        )
    names = plots.draw(made, args.out) if args.plots else []
    said = about(_command(args))
    text = card(made, title=TITLE, about=said, counted_with=counted_with, plots=names)
    (args.out / "README.md").write_text(text, encoding="utf-8")
    print(args.out / "README.md")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sglang_multiverse.training.data", description=__doc__
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="directory of the files, made if need be")
    add("--examples", type=_positive, required=True, help="examples of the training set")
    add("--held-out", type=_positive, help="examples held out (default: a tenth of --examples)")
    add("--seed", type=_natural, default=0, help="the first seed (default: %(default)s)")
    add("--split", choices=(*SPLITS, BOTH), default=BOTH, help="which files (default: %(default)s)")
    add("--kind", choices=KINDS, help="only this kind (default: a mixture)")
    add("--family", choices=(*FAMILIES, MIXED, CHAT), help="only this family (default: all)")
    add(
        "--tokenizer",
        type=Path,
        help="a transformers tokenizer's directory, a GGUF file, or a bundled base's name, to "
        "count tokens with (default: words, digits and signs)",
    )
    add("--no-plots", dest="plots", action="store_false", help="a card without plots")
    return parser


def _positive(text: str) -> int:
    return _whole(text, 1)


def _natural(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    value = int(text) if text.removeprefix("-").isdecimal() else least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
    return value


def _tokenizer(path: Path | None) -> tuple[Any, TagTable, str]:
    """A tokenizer with the tags, the tags, and what to call it."""
    if path is None:
        return *pieces(), "words, digits and signs (no model's tokenizer was given)"
    if str(path) in BUNDLED:
        path = find_gguf(str(path))
    if not path.exists():
        raise ValueError(
            f"argument --tokenizer: {path} is neither a directory nor a GGUF file nor one of "
            f"{', '.join(BUNDLED)}"
        )
    from transformers import AutoTokenizer

    try:
        if path.is_file():
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        else:
            tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"argument --tokenizer: {path} cannot be read: {error}") from error
    add_tags(tokenizer)
    return tokenizer, resolve_tags(tokenizer), f"the tokenizer {path.name}"


def _command(args: argparse.Namespace) -> str:
    """The command that gives these examples again, without this machine's paths."""
    said = f"--examples {args.examples} --seed {args.seed} --split {args.split}"
    for name in ("held_out", "kind", "family"):
        if getattr(args, name) is not None:
            said += f" --{name.replace('_', '-')} {getattr(args, name)}"
    return f"python -m sglang_multiverse.training.data {said}"


if __name__ == "__main__":
    main()
