"""The launcher's own part: which arguments are ours, and what it refuses."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from sglang_multiverse import launch_server
from sglang_multiverse.engine.options import ARGS_ENV, MultiverseArgs, OptionError
from sglang_multiverse.launch_server import LaunchError, check_plugin_loads, split_arguments


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What would have been handed to SGLang; nothing is started."""
    calls: list[list[str]] = []
    monkeypatch.setattr(launch_server, "serve", calls.append)
    monkeypatch.setattr(launch_server, "check_plugin_loads", lambda env: None)
    # Set, then removed: so that what a launch leaves behind is undone with the test.
    monkeypatch.setenv(ARGS_ENV, "{}")
    monkeypatch.delenv(ARGS_ENV)
    return calls


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
    assert shown.index("--attention-backend") < shown.index("--multiverse-max-depth")


def test_this_checkout_is_installed() -> None:
    """The entry points that everything rests on, as SGLang will find them."""
    from importlib.metadata import entry_points

    platforms = {p.name: p.value for p in entry_points(group="sglang.srt.platforms")}
    plugins = {p.name: p.value for p in entry_points(group="sglang.srt.plugins")}
    assert platforms["multiverse_cpu"] == "sglang_multiverse.engine.platform:activate"
    assert plugins["multiverse"] == "sglang_multiverse.engine.plugin:register"
