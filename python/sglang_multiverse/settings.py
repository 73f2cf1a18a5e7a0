"""Settings as fields of a dataclass: a command's flags are read off it, and their ranges."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

Config = TypeVar("Config")
Wrong = Callable[[str], Exception]
"""Makes the exception of a room from what is wrong."""


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


def check_ranges(config: Any, wrong: Wrong) -> None:
    """Raise `wrong(what)` for the first field of a dataclass that is out of its range."""
    for spec in dataclasses.fields(config):
        if said := out_of_range(spec.name, getattr(config, spec.name), spec.metadata):
            raise wrong(said)


def check_address(name: str, value: str, wrong: Wrong) -> None:
    """Raise `wrong(what)` where a value is no address of an endpoint."""
    try:
        parts = urlsplit(value)
        well = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well = False
    if not well:
        raise wrong(f"{name}: {value!r} is no address such as http://127.0.0.1:30000/v1")


def add_flags(parser: argparse.ArgumentParser, config: type) -> None:
    """One flag per setting of a dataclass; what is not given stays out of the result."""
    hints = get_type_hints(config)
    for spec in dataclasses.fields(config):
        kind: Any = hints[spec.name]
        default = spec.default if spec.default not in ((), "") else "none"
        if isinstance(default, tuple):
            default = ",".join(map(str, default))
        help_ = f"{spec.metadata['help']} (default: {default})".replace("%", "%%")
        flag = "--" + spec.name.replace("_", "-")
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=help_)
        elif get_origin(kind) is tuple:
            parser.add_argument(flag, action="append", metavar="TEXT", help=help_)
        else:
            metavar = "|".join(get_args(kind)) if get_origin(kind) is Literal else None
            parser.add_argument(flag, metavar=metavar, help=help_)


def from_flags(
    config: type[Config], flags: Mapping[str, Any], wrong: Wrong, *, lists: tuple[str, ...] = ()
) -> Config:
    """A config from a command line's text; the fields named in `lists` take commas, too."""
    hints = get_type_hints(config)
    values = {}
    for name, value in flags.items():
        if name in lists:
            value = [part for text in value for part in text.split(",")]
        values[name] = convert(name, value, hints[name], wrong)
    return config(**values)


def convert(name: str, value: Any, hint: Any, wrong: Wrong) -> Any:
    """The text of a flag as its field's type; raises `wrong(what)`."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise wrong(f"{name}: {value!r} is not one of {', '.join(get_args(hint))}")
        return value
    if get_origin(hint) is tuple:
        return tuple(convert(name, one, get_args(hint)[0], wrong) for one in value)
    if hint in (int, float):
        try:
            return hint(value)
        except ValueError:
            kind = "a whole number" if hint is int else "a number"
            raise wrong(f"{name}: {value!r} is not {kind}") from None
    return value
