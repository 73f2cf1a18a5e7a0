"""The options of the package's commands, read off their parsers and dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tables import code, table

from sglang_multiverse.engine.options import MultiverseArgs
from sglang_multiverse.launch_server import build_parser as server_parser

_DEFAULT = re.compile(r"\s*(?:\(default: (?P<a>.*)\)|default: (?P<b>.*))$")


@dataclass(frozen=True)
class Command:
    """A command of the package: its module, a subcommand of it, and the class of its settings.

    `config` is `module:Class`, and gives the ranges, which a parser does not know.
    """

    module: str
    sub: str = ""
    config: str = ""

    def parser(self) -> argparse.ArgumentParser:
        found: argparse.ArgumentParser = import_module(self.module).build_parser()
        if not self.sub:
            return found
        subs = next(a for a in found._actions if isinstance(a, argparse._SubParsersAction))
        chosen: argparse.ArgumentParser = subs.choices[self.sub]
        return chosen

    def table(self) -> str:
        config: Any = None
        if self.config:
            module, _, name = self.config.partition(":")
            config = getattr(import_module(module), name)
        actions = [a for a in self.parser()._actions if not isinstance(a, argparse._HelpAction)]
        if not actions:
            return "It takes no options."
        return table(
            ("Option", "Default", "Allowed", "Meaning"), [_row(one, config) for one in actions]
        )


_EVALUATION, _CONFIG = "sglang_multiverse.evaluation", "sglang_multiverse.evaluation.config"
_CURATOR = "sglang_multiverse.curator"
_TRAINING = "sglang_multiverse.training"

COMMANDS: dict[str, Command] = {
    "demo": Command("sglang_multiverse.demo.__main__"),
    "view": Command("sglang_multiverse.view"),
    "bundled": Command("sglang_multiverse.bundled.__main__"),
    "bundled.pack": Command("sglang_multiverse.bundled.pack"),
    "training": Command(f"{_TRAINING}.__main__", config=f"{_TRAINING}.config:TrainConfig"),
    "training.data": Command(f"{_TRAINING}.data.__main__"),
    "training.merge": Command(f"{_TRAINING}.merge"),
    "curator run": Command(f"{_CURATOR}.__main__", "run", f"{_CURATOR}.config:RunConfig"),
    "curator show": Command(f"{_CURATOR}.__main__", "show"),
    "curator report": Command(f"{_CURATOR}.__main__", "report"),
    "curator demo": Command(f"{_CURATOR}.__main__", "demo"),
    "evaluation list": Command(f"{_EVALUATION}.__main__", "list"),
    "evaluation run": Command(f"{_EVALUATION}.__main__", "run", f"{_CONFIG}:RunConfig"),
    "evaluation budget": Command(f"{_EVALUATION}.__main__", "budget", f"{_CONFIG}:BudgetConfig"),
    "evaluation latency": Command(f"{_EVALUATION}.__main__", "latency", f"{_CONFIG}:LatencyConfig"),
    "evaluation compare": Command(
        f"{_EVALUATION}.__main__", "compare", f"{_CONFIG}:StatisticsConfig"
    ),
    "evaluation report": Command(f"{_EVALUATION}.__main__", "report"),
}
"""Command, as behind `python -m sglang_multiverse.` → what is known of it."""


def _row(action: argparse.Action, config: Any) -> tuple[str, ...]:
    text = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
    default = ""
    if found := _DEFAULT.search(text):
        text, default = text[: found.start()], found["a"] or found["b"] or ""
    if default in ("none", "None", ""):
        default = "required" if action.required and action.option_strings else ""
    elif " " not in default:
        default = code(default)
    name = " ".join(map(code, action.option_strings)) or code(action.metavar or action.dest)
    return name, default, _allowed(action, config), text


def _allowed(action: argparse.Action, config: Any) -> str:
    """The choices or the range of an option."""
    if action.choices:
        return ", ".join(map(code, action.choices))
    specs = {spec.name: spec for spec in dataclasses.fields(config)} if config else {}
    spec = specs.get(action.dest)
    if spec is None:
        return ""
    hint = get_type_hints(config)[spec.name]
    if get_origin(hint) is Literal:
        return ", ".join(map(code, get_args(hint)))
    return span(spec.metadata["least"], spec.metadata["most"])


def span(least: float | None, most: float | None) -> str:
    if least is None and most is None:
        return ""
    if most is None:
        return f"{least} or more"
    return f"{'' if least is None else least} … {most}"


def server_options() -> str:
    """`launch_server`'s own options; SGLang's are SGLang's."""
    flags = {
        action.dest.removeprefix("multiverse_"): action.option_strings
        for action in server_parser(MultiverseArgs())._actions
    }
    rows = []
    for field in dataclasses.fields(MultiverseArgs):
        choices, bounds = field.metadata["choices"], field.metadata["range"]
        allowed = ", ".join(map(code, choices)) if choices else span(*(bounds or (None, None)))
        default = "no bound" if field.default is None else code(_json(field.default))
        names = " ".join(map(code, flags[field.name]))
        rows.append((names, default, allowed, field.metadata["help"]))
    return table(("Option", "Default", "Allowed", "Meaning"), rows)


def _json(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
