"""`python -m sglang_multiverse.launch_server`: SGLang's server and flags, plus ours.

The server is SGLang's own. This module takes our flags off the command line,
leaves them in the environment for the processes that SGLang starts, and hands
over the rest. Those processes import it again, so it must do nothing on import.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import NoReturn

from sglang_multiverse.engine import upstream
from sglang_multiverse.engine.options import MultiverseArgs, OptionError

PROG = "python -m sglang_multiverse.launch_server"
_PLUGIN = "multiverse"
_PLUGIN_GROUP = "sglang.srt.plugins"
_OUR_PLATFORMS = ("", "multiverse_cpu")
# SGLang closes a quiet connection after 5 s. httpx, and with it OpenAI's client, would use it that
# long too, so that a request which comes at that moment is lost. Proxies hold one up to 60 s.
_KEEP_ALIVE = "SGLANG_TIMEOUT_KEEP_ALIVE"
_KEEP_ALIVE_SECONDS = 75


class LaunchError(Exception):
    """The server cannot be started as asked; the message says what to change."""


def build_parser(defaults: MultiverseArgs) -> argparse.ArgumentParser:
    """A parser for our flags only. Abbreviations would take SGLang's flags for ours."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        usage=f"{PROG} [--model-path MODEL] [any SGLang flag] [--multiverse-…]",
        description="Without --model-path or --config, the package's own model is served.",
        add_help=False,
        allow_abbrev=False,
    )
    MultiverseArgs.add_cli_args(parser)
    parser.set_defaults(
        **{f"multiverse_{name}": value for name, value in dataclasses.asdict(defaults).items()}
    )
    return parser


def split_arguments(
    argv: Sequence[str], env: Mapping[str, str]
) -> tuple[MultiverseArgs, list[str]]:
    """Our options, and the arguments that are left for SGLang.

    A flag wins over the environment, which wins over the built-in default.

    Raises:
        OptionError: a value is out of range, here or in the environment.
        LaunchError: a flag has our prefix and is not ours.
    """
    parser = build_parser(MultiverseArgs.from_env(env))
    parsed, rest = parser.parse_known_args(argv)
    for argument in rest:
        if argument.startswith(("--multiverse-", "--no-multiverse-")):
            known = sorted(s for a in parser._actions for s in a.option_strings)
            raise LaunchError(f"{argument.partition('=')[0]}: unknown; there is {', '.join(known)}")
    return MultiverseArgs.from_cli_args(parsed), rest


def names_model(arguments: Sequence[str]) -> bool:
    """Whether SGLang is told which model, be it by an abbreviation or in a file of its own."""
    flags = {argument.partition("=")[0] for argument in arguments} - {"-", "--"}
    return "--config" in flags or any("--model-path".startswith(flag) for flag in flags if flag)


def bundled_model() -> list[str]:
    """Flags that serve the package's own model, which is made at first use.

    Raises:
        LaunchError: it cannot be made here.
    """
    from rich.console import Console

    from sglang_multiverse.bundled import BundledModelError, model_path, packaged
    from sglang_multiverse.bundled.progress import Bar

    try:
        with Bar(Console(stderr=True)) as bar:
            path = model_path(bar)
    except BundledModelError as error:
        raise LaunchError(f"{error} (or serve another model: --model-path)") from error
    return ["--model-path", str(path), "--served-model-name", packaged().name]


def check_plugin_loads(env: Mapping[str, str]) -> None:
    """SGLang leaves a plugin out without a word; say so before it does.

    Raises:
        LaunchError: naming the cause.
    """
    if not any(point.name == _PLUGIN for point in entry_points(group=_PLUGIN_GROUP)):
        raise LaunchError("sglang-multiverse is not installed: run `pip install .` or `make env`")
    allowed = {name.strip() for name in env.get("SGLANG_PLUGINS", "").split(",")} - {""}
    if allowed and _PLUGIN not in allowed:
        raise LaunchError(f"SGLANG_PLUGINS leaves out this server's plugin: add {_PLUGIN!r}")
    # SGLang skips every plugin of a package whose platform was not the one chosen.
    if env.get("SGLANG_PLATFORM", "") not in _OUR_PLATFORMS:
        raise LaunchError(
            f"SGLANG_PLATFORM={env['SGLANG_PLATFORM']} makes SGLang skip this server's plugin, "
            "which shares a package with another platform: unset it"
        )


def print_help() -> None:
    """SGLang's flags, then ours, which are fewer and should not scroll away."""
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser(prog=PROG, usage=argparse.SUPPRESS)
    ServerArgs.add_cli_args(parser)
    parser.print_help()
    print()
    build_parser(MultiverseArgs()).print_help()


def serve(argv: list[str]) -> None:
    """Run SGLang's server until it ends, and end its processes with it."""
    from sglang.launch_server import run_server
    from sglang.srt.plugins import load_plugins
    from sglang.srt.server_args import prepare_server_args
    from sglang.srt.utils import kill_process_tree

    if upstream.on_our_platform():
        # Its processes are forked from this one: what they need is imported and hooked here.
        importlib.import_module(upstream.SCHEDULER)
        importlib.import_module(upstream.HTTP_SERVER)
        upstream.register(upstream.launch_hooks())
    load_plugins()
    server_args = prepare_server_args(argv)
    try:
        run_server(server_args)
    finally:
        kill_process_tree(os.getpid(), include_parent=False)


def _refuse(error: Exception) -> NoReturn:
    print(f"{PROG}: error: {error}", file=sys.stderr)
    raise SystemExit(2)


def main(argv: Sequence[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    if "-h" in argv or "--help" in argv:
        print_help()
        return
    try:
        args, rest = split_arguments(argv, os.environ)
        if args.enable:
            check_plugin_loads(os.environ)
        if not names_model(rest):
            # In front, so that a name the user chose comes later and wins.
            rest = [*bundled_model(), *rest]
    except (OptionError, LaunchError) as error:
        _refuse(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    os.environ.update(args.to_env())
    os.environ.setdefault(_KEEP_ALIVE, str(_KEEP_ALIVE_SECONDS))
    serve(rest)


if __name__ == "__main__":
    main()
