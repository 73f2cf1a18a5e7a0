"""What a user can set: the server's options and, within them, a request's.

Every option is stated once, here, as a field with its default, range and help
text. The command line and the request schema are derived from these fields.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, ValidationError

ARGS_ENV = "SGLANG_MULTIVERSE_ARGS"
_PREFIX = "--multiverse-"
_ECHO = 40  # characters of a client's own words that an error message repeats


class OptionError(ValueError):
    """An option is unknown or out of range; the message names it and what is allowed."""


def _option(
    default: Any,
    help: str,
    low: int | None = None,
    high: int | None = None,
    choices: tuple[str, ...] = (),
    value: type = int,
) -> Any:
    bounds = None if low is None else (low, high)
    told = {"help": help, "range": bounds, "choices": choices, "value": str if choices else value}
    return dataclasses.field(default=default, metadata=told)


@dataclasses.dataclass(frozen=True, slots=True)
class MultiverseArgs:
    """The server's options. `None` means no bound."""

    enable: bool = _option(True, "Fork at </Goal>; off serves every model as plain SGLang does.")
    playground: bool = _option(True, "Serve a page at /playground that shows branches live.")
    guard: bool = _option(True, "Mask the tags that may not come next.")
    stop_in_blocks: bool = _option(
        True,
        "A request's stop strings and token ids end a branch too; off, they are dormant in blocks.",
    )
    max_depth: int = _option(4, "Deepest nesting of parallel blocks.", 1, 16)
    max_branches: int = _option(16, "Most branches of one block.", 1, 256)
    max_total_branches: int = _option(256, "Most branches of one request.", 1, 65536)
    max_parallel_branches: int = _option(
        256,
        "Most branches of one block that decode at once; 1 runs them one after another.",
        1,
        256,
    )
    max_path_tokens: int | None = _option(
        None, "Longest branch, in tokens; a longer one is closed with a forced tag.", 16, 1 << 20
    )
    max_critical_tokens: int | None = _option(
        None, "Longest path of an answer, in positions; a longer one is cut.", 1, 1 << 24
    )
    cpu_weights: str = _option(
        "auto",
        "Weights of the compiled CPU decoder; auto is bf16 where that is exact, else fp32.",
        choices=("auto", "fp32", "bf16", "int8"),
    )
    replay: str | None = _option(
        None,
        "For benchmarks: a file of scripts, one of which each request must name and is answered "
        "with, token for token. Refused where users could reach the server.",
        value=str,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            bounds, value = field.metadata["range"], getattr(self, field.name)
            choices = field.metadata["choices"]
            if choices and value not in choices:
                raise OptionError(f"{field.name}={value!r}: allowed are {', '.join(choices)}")
            if field.metadata["value"] is str and not isinstance(value, str | None):
                raise OptionError(f"{field.name}={value!r}: expected a path")
            if bounds is None or (value is None and field.default is None):
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise OptionError(f"{field.name}: expected an integer, got {value!r}")
            low, high = bounds
            if not low <= value <= high:
                raise OptionError(f"{field.name}={value} is outside [{low}, {high}]")

    @classmethod
    def add_cli_args(cls, parser: argparse.ArgumentParser) -> None:
        """Add one `--multiverse-…` flag per field."""
        group = parser.add_argument_group("Multiverse")
        for field in dataclasses.fields(cls):
            flag = _PREFIX + field.name.replace("_", "-")
            help_text = f"{field.metadata['help']} (default: {field.default})"
            if isinstance(field.default, bool):
                group.add_argument(
                    flag,
                    action=argparse.BooleanOptionalAction,
                    default=field.default,
                    dest="multiverse_" + field.name,
                    help=help_text,
                )
            else:
                choices = field.metadata["choices"]
                group.add_argument(
                    flag,
                    type=field.metadata["value"],
                    metavar=f"{{{','.join(choices)}}}" if choices else None,
                    default=field.default,
                    dest="multiverse_" + field.name,
                    help=help_text,
                )

    @classmethod
    def from_cli_args(cls, args: argparse.Namespace) -> MultiverseArgs:
        """Raises `OptionError` when a value is out of range."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: getattr(args, "multiverse_" + name) for name in names})

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> MultiverseArgs:
        """The options as the launcher left them for the processes it starts.

        `sglang serve` leaves none, and the defaults hold; a user of it may set
        the variable to a JSON object himself.
        """
        text = env.get(ARGS_ENV, "{}")
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise OptionError(f"{ARGS_ENV}={text!r}: {error}") from error

    def to_env(self) -> dict[str, str]:
        return {ARGS_ENV: json.dumps(dataclasses.asdict(self))}


class RequestOptions(BaseModel):
    """The `multiverse` object of a request. A field left out takes the server's value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    guard: StrictBool | None = None
    stop_in_blocks: StrictBool | None = None
    max_depth: StrictInt | None = Field(None, ge=1)
    max_branches: StrictInt | None = Field(None, ge=1)
    max_total_branches: StrictInt | None = Field(None, ge=1)
    max_parallel_branches: StrictInt | None = Field(None, ge=1)
    max_path_tokens: StrictInt | None = Field(None, ge=16)
    max_critical_tokens: StrictInt | None = Field(None, ge=1)
    stream: Literal["linear", "branches"] = Field(
        "linear", description="Order of a streamed answer; branches: each as it grows."
    )
    return_sequences: StrictBool = Field(
        False, description="Add the answer's sequences, token for token; needs log probabilities."
    )

    @classmethod
    def parse(cls, value: object, server: MultiverseArgs) -> RequestOptions:
        """Check a request's options against the server's caps.

        Raises:
            OptionError: naming the field and the allowed values.
        """
        if not isinstance(value, dict):
            raise OptionError("multiverse: expected an object of options")
        unknown = sorted(set(value) - set(cls.model_fields))
        if unknown:
            raise OptionError(
                f"multiverse.{unknown[0][:_ECHO]}: unknown option; "
                f"allowed: {', '.join(sorted(cls.model_fields))}"
            )
        try:
            options = cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            given = repr(first["input"])[:_ECHO]
            raise OptionError(
                f"multiverse.{name}={given}: {_allowed_text(name, server)}"
            ) from error
        for name, cap in _caps(server).items():
            asked = getattr(options, name)
            if asked is not None and cap is not None and asked > cap:
                raise OptionError(f"multiverse.{name}={asked}: {_allowed_text(name, server)}")
        return options

    def resolve(self, server: MultiverseArgs) -> MultiverseArgs:
        """The options in force for this request."""
        asked = self.model_dump(exclude={"stream", "return_sequences"}, exclude_none=True)
        return dataclasses.replace(server, **asked)


def _caps(server: MultiverseArgs) -> dict[str, int | None]:
    """Numeric option → the server's value, which caps it; `None` for no server-wide cap."""
    return {
        field.name: getattr(server, field.name)
        for field in dataclasses.fields(server)
        if field.metadata["range"] is not None
    }


def _allowed_text(name: str, server: MultiverseArgs) -> str:
    ranges = {f.name: f.metadata["range"] for f in dataclasses.fields(server)}
    if ranges.get(name) is not None:
        low, high = ranges[name]
        cap = _caps(server)[name]
        return f"allowed: an integer in [{low}, {high if cap is None else cap}]"
    if name == "stream":
        return 'allowed: "linear" or "branches"'
    return "allowed: true or false"
