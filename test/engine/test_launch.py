"""The launcher's own part: which arguments are ours, and what it refuses."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sglang_multiverse import bundled, launch_server
from sglang_multiverse.bundled import BundledModelError
from sglang_multiverse.engine.options import ARGS_ENV, MultiverseArgs, OptionError
from sglang_multiverse.launch_server import (
    LaunchError,
    check_plugin_loads,
    names_model,
    split_arguments,
)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would have been handed to SGLang; nothing is started."""
    calls: list[list[str]] = []
    monkeypatch.setattr(launch_server, "serve", calls.append)
    monkeypatch.setattr(launch_server, "check_plugin_loads", lambda env: None)
    # Set, then removed: so that what a launch leaves behind is undone with the test.
    monkeypatch.setenv(ARGS_ENV, "{}")
    monkeypatch.delenv(ARGS_ENV)
    monkeypatch.setenv("SGLANG_TIMEOUT_KEEP_ALIVE", "")
    monkeypatch.delenv("SGLANG_TIMEOUT_KEEP_ALIVE")
    return calls


@pytest.mark.parametrize("chosen", [None, "9"])
def test_quiet_connections_stay_open_unless_the_user_says_how_long(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch, chosen: str | None
) -> None:
    if chosen is not None:
        monkeypatch.setenv("SGLANG_TIMEOUT_KEEP_ALIVE", chosen)
    launch_server.main(["--model-path", "m"])
    assert len(started) == 1
    assert os.environ["SGLANG_TIMEOUT_KEEP_ALIVE"] == (chosen or "75")


def test_ours_are_taken_and_the_rest_stays_in_order() -> None:
    argv = (
        "--model-path m --multiverse-max-depth 2 --tp 1 --no-multiverse-guard "
        "--json-model-override-args {} --multiverse-max-path-tokens=64 --port 8000"
    ).split()
    args, rest = split_arguments(argv, {})
    assert args == MultiverseArgs(max_depth=2, guard=False, max_path_tokens=64)
    assert rest == "--model-path m --tp 1 --json-model-override-args {} --port 8000".split()


def test_sglangs_flags_are_never_taken_for_abbreviations() -> None:
    _, rest = split_arguments(["--mu", "1", "--m", "x"], {})
    assert rest == ["--mu", "1", "--m", "x"]


def test_a_flag_wins_over_the_environment() -> None:
    env = {ARGS_ENV: json.dumps({"max_depth": 2, "max_branches": 5})}
    args, _ = split_arguments(["--multiverse-max-depth", "3"], env)
    assert (args.max_depth, args.max_branches) == (3, 5)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--multiverse-max-depth", "99"], "max_depth=99"),
        (["--multiverse-max-branches", "0"], "max_branches=0"),
        (["--multiverse-depth", "3"], "--multiverse-depth"),
        (["--no-multiverse-max-depth"], "--no-multiverse-max-depth"),
        (["--multiverse-max-depth", "ten"], "--multiverse-max-depth"),
    ],
)
def test_a_bad_option_ends_with_2_and_its_name(
    argv: list[str],
    named: str,
    started: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        launch_server.main(["--model-path", "m", *argv])
    assert ended.value.code == 2
    assert named in capsys.readouterr().err
    assert not started


def test_a_bad_environment_is_an_option_error() -> None:
    with pytest.raises(OptionError, match=ARGS_ENV):
        split_arguments([], {ARGS_ENV: '{"max_depth": 99}'})


def test_options_reach_the_processes_through_the_environment(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    launch_server.main(["--model-path", "m", "--multiverse-max-branches", "4"])
    assert started == [["--model-path", "m"]]
    assert MultiverseArgs.from_env() == MultiverseArgs(max_branches=4)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ("--model-path m", True),
        ("--model-path=m", True),
        ("--model m", True),
        ("--model=m", True),
        ("--tp 1 --model-pa m", True),
        ("--config server.yaml", True),
        ("", False),
        ("--port 8000", False),
        ("--model-loader-extra-config {} --model-impl auto", False),
        ("--tokenizer-path m --speculative-draft-model-path m", False),
        ("--chat-template -- - model", False),
    ],
)
def test_whether_a_model_is_named(argv: str, named: bool) -> None:
    assert names_model([*argv.split(), ""]) is named


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The package's model is there, and needs not be made."""
    monkeypatch.setattr(bundled, "model_path", lambda bar: Path("/models/own"))
    return ["--model-path", "/models/own", "--served-model-name", "smollm2-135m-multiverse"]


def test_without_a_model_the_package_s_own(started: list[list[str]], own: list[str]) -> None:
    launch_server.main([])
    launch_server.main(["--port", "8000", "--multiverse-max-depth", "2"])
    launch_server.main(["--served-model-n", "mine"])
    launch_server.main(["--model", "m"])
    assert started == [
        own,
        [*own, "--port", "8000"],
        [*own, "--served-model-n", "mine"],
        ["--model", "m"],
    ]


def test_sglang_reads_it_so_that_the_user_s_name_wins(own: list[str]) -> None:
    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    assert parser.parse_args(own).served_model_name == "smollm2-135m-multiverse"
    args = parser.parse_args([*own, "--served-model-n", "mine", "--port", "8000"])
    assert (args.model_path, args.served_model_name) == ("/models/own", "mine")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BundledModelError("no base"), 2, "error: no base (or serve another model: --model-path)"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_own_model_that_cannot_be_made(
    error: BaseException,
    code: int,
    said: str,
    started: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails(bar: object) -> Path:
        raise error

    monkeypatch.setattr(bundled, "model_path", fails)
    with pytest.raises(SystemExit) as ended:
        launch_server.main(["--port", "8000"])
    assert ended.value.code == code
    assert said in capsys.readouterr().err
    assert not started


def test_a_server_of_another_model_needs_none_of_it(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sglang_multiverse.bundled", None)
    launch_server.main(["--model-path", "m"])
    assert started


def _installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    points: list[Any] = [SimpleNamespace(name=name) for name in names]
    monkeypatch.setattr(launch_server, "entry_points", lambda group: points)


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"SGLANG_PLUGINS": ""},
        {"SGLANG_PLUGINS": "other, multiverse"},
        {"SGLANG_PLATFORM": "multiverse_cpu"},
    ],
)
def test_plugin_will_load(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
    _installed(monkeypatch, "multiverse")
    check_plugin_loads(env)


@pytest.mark.parametrize("env", [{"SGLANG_PLUGINS": "other"}, {"SGLANG_PLATFORM": "vendor"}])
def test_plugin_that_sglang_would_leave_out(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str]
) -> None:
    _installed(monkeypatch, "multiverse")
    with pytest.raises(LaunchError, match=next(iter(env))):
        check_plugin_loads(env)


def test_plugin_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    _installed(monkeypatch, "other")
    with pytest.raises(LaunchError, match="not installed"):
        check_plugin_loads({})


def test_help_shows_sglangs_flags_and_ours(capsys: pytest.CaptureFixture[str]) -> None:
    launch_server.main(["--help"])
    shown = capsys.readouterr().out
    assert "--attention-backend" in shown
    assert "--multiverse-max-depth" in shown
    assert "Without --model-path or --config, the package's own model is served." in shown
    assert shown.index("--attention-backend") < shown.index("--multiverse-max-depth")


def test_this_checkout_is_installed() -> None:
    """The entry points that everything rests on, as SGLang will find them."""
    from importlib.metadata import entry_points

    platforms = {p.name: p.value for p in entry_points(group="sglang.srt.platforms")}
    plugins = {p.name: p.value for p in entry_points(group="sglang.srt.plugins")}
    assert platforms["multiverse_cpu"] == "sglang_multiverse.engine.platform:activate"
    assert plugins["multiverse"] == "sglang_multiverse.engine.plugin:register"
