"""`python -m sglang_multiverse.bundled`: where the package's model is, made if need be.

For `--model-path "$(python -m sglang_multiverse.bundled)"`: the path goes to stdout,
everything else to stderr.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from . import BundledModelError, model_path
from .progress import Bar


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sglang_multiverse.bundled",
        description="Print the directory of the package's model, which is made at first use.",
    )
    parser.add_argument(
        "--bundle", type=Path, help="of another model, as `pack` wrote it (default: the package's)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    bundle = build_parser().parse_args(argv).bundle
    try:
        with Bar(Console(stderr=True)) as bar:
            path = model_path(bar, bundle=bundle)
    except BundledModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
