"""Whether the commands of a block would be taken as they stand, found out without running them.

The shell itself splits and expands them: every program that it could call is one that notes its
arguments and does nothing. They are then given to the parser of the command that was meant.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from docs.blocks import ROOT

_NOTE = """#!/bin/bash
printf '%s\\0' "$#" "${0#"$PROGRAMS/"}" "$@" >>"$NOTED"
"""
_PACKAGE = "sglang_multiverse"
_THEIRS = (
    *("curl", "cat", "docker", "git", "head", "kubectl", "ls", "sgl-eval", "some-command"),
    "uv",
)


class RefusedError(Exception):
    """A command that would not run as it is written; the message says which, and why."""


def commands_in(text: str, folder: Path) -> list[list[str]]:
    """The commands that a shell block calls: program and arguments, in order.

    Raises:
        RefusedError: the shell itself refuses it, or it calls a program that is not known here.
    """
    programs, noted = folder / "programs", folder / "noted"
    scripts = [path.relative_to(ROOT) for path in (ROOT / "benchmark").rglob("*.sh")]
    for name in [*_CHECKS, *map(str, scripts)]:
        path = programs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_NOTE)
        path.chmod(0o755)
    noted.write_text("")
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-euo", "pipefail", "-c", f"{text}\nwait"],
        cwd=programs,
        env={"PATH": str(programs), "PROGRAMS": str(programs), "NOTED": str(noted)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        raise RefusedError(done.stderr.strip() or f"the shell ended with {done.returncode}")
    words = noted.read_text().split("\0")[:-1]
    found = []
    while words:
        count = int(words[0]) + 2
        found.append(words[1:count])
        words = words[count:]
    return found


def check(command: list[str]) -> None:
    """Raises `RefusedError` where a command would not take its arguments."""
    program, *arguments = command
    program = program.removeprefix("./")
    if program.endswith(".sh"):
        _check_source(program, arguments)
    else:
        _CHECKS[program](arguments)


def _python(arguments: list[str]) -> None:
    if arguments[:1] == ["-m"]:
        _module(arguments[1], arguments[2:])
    elif arguments[:1] not in (["-c"], ["-"]):
        _check_source(arguments[0], arguments[1:])


def _module(name: str, arguments: list[str]) -> None:
    if name in ("json.tool", "sglang_router.launch_router"):
        return
    if name == "sglang.launch_server":
        _parse(sglang_parser(), arguments, name)
    elif name == f"{_PACKAGE}.launch_server":
        from sglang_multiverse.launch_server import split_arguments

        _, rest = _said(lambda: split_arguments(arguments, {}), name)
        _parse(sglang_parser(), ["--model-path", "any", *rest], name)
    elif name == f"{_PACKAGE}.training":
        from sglang_multiverse.training.__main__ import read_config

        _said(lambda: read_config(_existing(arguments)), name)
    elif name.split(".")[0] == _PACKAGE:
        main = import_module(name)
        if hasattr(main, "__path__"):
            main = import_module(f"{name}.__main__")
        parsed = vars(_parse(main.build_parser(), arguments, name))
        _said(lambda: _configured(name, parsed), name)
    else:
        raise RefusedError(f"no parser is known of {name}")


def _configured(name: str, parsed: dict[str, Any]) -> None:
    """Check the values, too, where the command's settings are a class."""
    from sglang_multiverse import settings
    from sglang_multiverse.curator import config as curator
    from sglang_multiverse.evaluation import __main__ as evaluation

    sub = parsed.pop("command", "")
    if name == f"{_PACKAGE}.curator" and sub == "run":
        curator.make_config({k: v for k, v in parsed.items() if k not in ("source", "out")})
    elif name == f"{_PACKAGE}.evaluation" and sub in evaluation._CONFIGS:
        parsed.pop("out")
        kind, lists = evaluation._CONFIGS[sub], evaluation.LISTS
        settings.from_flags(kind, parsed, evaluation.EvaluationError, lists=lists)


def _existing(arguments: list[str]) -> list[str]:
    """With a recipe's path as the checkout has it."""
    return [
        str(ROOT / word) if word.startswith("python/") and (ROOT / word).exists() else word
        for word in arguments
    ]


def _sglang(arguments: list[str]) -> None:
    if arguments[:1] != ["serve"]:
        raise RefusedError(f"sglang {' '.join(arguments)}: only `sglang serve` is known here")
    _parse(sglang_parser(), arguments[1:], "sglang serve")


@functools.cache
def sglang_parser() -> argparse.ArgumentParser:
    """The flags of SGLang's server, with what our plugin adds to their values."""
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import ServerArgs

    load_plugins()  # some flags have values of ours
    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    return parser


def _accelerate(arguments: list[str]) -> None:
    config = arguments[arguments.index("--config_file") + 1]
    if not (ROOT / config).is_file():
        raise RefusedError(f"--config_file: there is no {config}")
    at = arguments.index("-m")
    _module(arguments[at + 1], arguments[at + 2 :])


def _make(arguments: list[str]) -> None:
    done = subprocess.run(
        ["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    if done.returncode:
        raise RefusedError(f"make {' '.join(arguments)}: {done.stderr.strip()}")
    # What the target calls is a command as well; the recipe's own python is `.venv/bin/python`.
    for line in done.stdout.splitlines():
        if found := re.match(r"\.venv/bin/python -m (sglang_multiverse\S*|pytest) ?(.*)", line):
            words = shlex.split(found[2])
            _pytest(words) if found[1] == "pytest" else _module(found[1], words)


def _pip(arguments: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in arguments[1:]:
        found = re.fullmatch(rf"(?:\.|{project['name']})\[([\w,-]+)\]", word)
        for extra in found[1].split(",") if found else ():
            if extra not in project["optional-dependencies"]:
                raise RefusedError(f"pip install {word}: there is no extra {extra}")


def _check_source(file: str, arguments: list[str]) -> None:
    """A script: it is there, and knows each flag by name."""
    path = ROOT / file
    if not path.is_file():
        raise RefusedError(f"there is no {file}")
    sources = "".join(one.read_text() for one in path.parent.glob(f"*{path.suffix}"))
    for flag in (word.partition("=")[0] for word in arguments if word.startswith("--")):
        if flag not in sources:
            raise RefusedError(f"{file}: no flag {flag}")


def _pytest(arguments: list[str]) -> None:
    for word in arguments:
        if word.startswith("test/") and not (ROOT / word).exists():
            raise RefusedError(f"pytest: there is no {word}")


def _theirs(arguments: list[str]) -> None:
    """A program that is not ours: its arguments are its own."""


def _parse(parser: argparse.ArgumentParser, arguments: list[str], name: str) -> argparse.Namespace:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parser.parse_args(arguments)
    except SystemExit as error:
        last = said.getvalue().strip().splitlines()[-1:]
        raise RefusedError(f"{name} {' '.join(arguments)}: {''.join(last)}") from error


def _said(call: Callable[[], Any], name: str) -> Any:
    """What `call` returns; its refusal, an error of one line, as `RefusedError`."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        raise RefusedError(f"{name}: {error}") from error


_CHECKS: dict[str, Callable[[list[str]], None]] = {
    "python": _python,
    "sglang": _sglang,
    "accelerate": _accelerate,
    "make": _make,
    "pip": _pip,
    "pytest": _pytest,
    ".venv/bin/pytest": _pytest,
    **dict.fromkeys(_THEIRS, _theirs),
}
