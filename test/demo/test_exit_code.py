"""Zero only if the answer came from two branches in one decode batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from demo.pieces import SUMMARY
from demo.stub import stub
from sglang_multiverse.demo.__main__ import main, parse


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return


def run(url: str, *flags: str) -> int:
    return main(["--url", url, "--repeats", "2", *flags])


def test_two_branches_in_one_batch(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    with stub() as server:
        assert run(server.url, "--prompt", "?", "--seed", "7", "--svg", str(picture)) == 0
    out = capsys.readouterr().out
    assert "most branches decoded in one batch" in out
    assert "2.1: ay" in out
    assert "2.1" in picture.read_text()
    assert "font-face" not in picture.read_text()
    first, *timed = server.requests
    assert first["multiverse"] == {"stream": "branches"}
    assert first["seed"] == 7
    # In turn, and each from an empty cache.
    assert [request.get("flush", False) for request in timed] == [True, False] * 4
    options = [request["multiverse"] for request in timed[1::2]]
    assert options == [{}, {"max_parallel_branches": 1}] * 2


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        (None, "serves no forks"),
        ({}, "serves no forks"),
        ({**SUMMARY, "branches": 0, "max_concurrent_branches": 0}, "without opening branches"),
        ({**SUMMARY, "max_concurrent_branches": 1}, "no two of them ran in the same"),
    ],
)
def test_anything_less(
    summary: dict[str, Any] | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with stub(summary) as server:
        assert run(server.url) == 1
    assert said in capsys.readouterr().out


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("http://127.0.0.1:9") == 1
    assert "failed" in capsys.readouterr().out


def test_a_busy_server_is_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    with stub(flush_status=400) as server:
        assert run(server.url) == 1
    assert "could not flush its cache: busy" in capsys.readouterr().out


def test_a_wrong_answer_is_called_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with stub() as server:
        assert run(server.url) == 0
    assert "wrong: 'Answer: 3'" in capsys.readouterr().out


def test_the_default_problem() -> None:
    problem = json.loads(files("sglang_multiverse.demo").joinpath("problem.json").read_text())
    assert set(problem) == {"prompt", "answer"}


@pytest.mark.parametrize(
    "argv",
    [
        ["--url", "http://x", "--model-path", "m"],
        ["--url", "http://x", "--", "--tp", "2"],
        ["--max-tokens", "0"],
        ["--repeats", "0"],
        ["--pace", "-1"],
    ],
)
def test_contradictions_are_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(argv)
    assert ended.value.code == 2


def test_flags_for_the_server() -> None:
    args = parse(["--model-path", "m", "--", "--tp", "2"])
    assert args.server_flags == ["--tp", "2"]
