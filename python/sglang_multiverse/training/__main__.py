"""`python -m sglang_multiverse.training --config FILE [--setting value …]`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from .config import ConfigError, TrainConfig, hints, make_config, read_config_file


def build_parser() -> argparse.ArgumentParser:
    """One flag per setting; what is not given stays out of the result."""
    parser = argparse.ArgumentParser(
        prog="python -m sglang_multiverse.training",
        description="Train a model to write Multiverse text. Flags outrank the config file.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        type=Path,
        help="a TOML or YAML file with the settings below, or the name of a recipe",
    )
    types = hints()
    for spec in dataclasses.fields(TrainConfig):
        kind: Any = types[spec.name]
        default = spec.default
        shown = ",".join(default) if isinstance(default, tuple) else default
        help_ = f"{spec.metadata['help']} (default: {shown})".replace("%", "%%")
        flag = "--" + spec.name.replace("_", "-")
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=help_)
        else:
            metavar = "|".join(get_args(kind)) if get_origin(kind) is Literal else None
            if get_origin(kind) is tuple:
                metavar = "A,B"
            parser.add_argument(flag, metavar=metavar, help=help_)
    return parser


def read_config(arguments: Sequence[str]) -> TrainConfig:
    """The config that a command line means.

    Raises:
        ConfigError
    """
    flags = vars(build_parser().parse_args(arguments))
    path = flags.pop("config", None)
    return make_config(read_config_file(path) if path is not None else {}, flags)


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        config = read_config(sys.argv[1:] if arguments is None else arguments)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # Late: settings are checked before torch is there.
    from .base import BaseModelError
    from .checkpoint import CheckpointError
    from .dataset import DataError
    from .encode import EncodingError
    from .loop import train

    try:
        print(train(config))
    except (ConfigError, BaseModelError, CheckpointError, DataError, EncodingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
