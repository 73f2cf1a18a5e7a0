"""Zero only if the answer came from two branches in one decode batch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import pytest
from rich.console import Console

from demo.pieces import SUMMARY
from demo.stub import stub
from sglang_multiverse import bundled
from sglang_multiverse.demo import __main__ as module
from sglang_multiverse.demo import report
from sglang_multiverse.demo.__main__ import main, parse
from sglang_multiverse.demo.client import Answer


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


def answer(text: str) -> Answer:
    return Answer(text, "stop", SUMMARY, 1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: 1) 12; 2) 3, 5", "Answer: 1) 12; 2) 3, 5"),
        ("so\nAnswer: 1) 12; 2) 3, 5\n", "1) 12; 2) 3, 5"),
        ("**Answer:** 1) 12;  2) 3, 5.", "Answer: 1) 12; 2) 3, 5"),
        ("<Conclusion>\nAnswer: -5\n</Conclusion>\n</Parallel>\n", "-5"),
    ],
)
def test_a_right_answer_is_called_right_however_it_is_dressed(text: str, expected: str) -> None:
    assert report.correctness(answer(text), expected).startswith("right: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Answer: 5", "Answer: -5"),
        ("Answer: 1) 12; 2) 5, 3", "1) 12; 2) 3, 5"),
        ("Answer: 3.5", "35"),
        ("Answer: 2*3", "23"),
        ("Answer: 12\nNo.", "12"),
        ("", "12"),
    ],
)
def test_a_wrong_one_stays_wrong(text: str, expected: str) -> None:
    assert report.correctness(answer(text), expected).startswith("wrong: ")


class _NoServer:
    """Starts nothing, and keeps what it was to serve."""

    url = "http://x"
    models: ClassVar[list[str]] = []

    def __init__(self, model: Path | str, flags: Sequence[str]) -> None:
        self.models.append(str(model))

    def __enter__(self) -> _NoServer:
        return self

    def __exit__(self, *args: object) -> None: ...

    def wait(self, on_stage: Callable[[str], None]) -> None: ...


def test_without_a_model_the_package_s_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def made(bar: Callable[[str, float], None]) -> Path:
        bar("merging", 0.5)
        return Path("/models/own")

    monkeypatch.setattr(module, "Server", _NoServer)
    monkeypatch.setattr(bundled, "model_path", made)
    with module.serving(parse([]), Console()) as url:
        assert url == "http://x"
    with module.serving(parse(["--model-path", "mine"]), Console()):
        pass
    assert _NoServer.models == ["/models/own", "mine"]
    assert "making the bundled model, once: merging" in capsys.readouterr().out


def test_an_own_model_that_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(bar: object) -> Path:
        raise bundled.BundledModelError("no base")

    monkeypatch.setattr(bundled, "model_path", fails)
    assert main([]) == 1
    assert "failed: no base (or give --model-path)" in capsys.readouterr().out


def test_the_default_problem_s_answer_is_right() -> None:
    """Worked out here from the question: what stood there once was wrong."""
    problem = json.loads(files("sglang_multiverse.demo").joinpath("problem.json").read_text())
    legs, total, numbers, words, several, limit = re.fullmatch(
        r".*\n1\. A farm keeps (.*), so how many legs are there altogether\?"
        r"\n2\. \(a\) what is (.*); \(b\) sort (.*) in ascending order\."
        r"\n3\. Put the words (.*) in reverse order\."
        r"\n4\. Which of (.*) are larger than (\d)\?",
        problem["prompt"],
    ).groups()
    each = {"cows": 4, "ducks": 2, "bees": 6}
    count = sum(int(n) * each[animal] for n, animal in re.findall(r"(\d) (\w+)", legs))
    added = sum(int(term.replace(" ", "")) for term in re.findall(r"[+-]? ?\d", total))
    ordered = ", ".join(sorted(numbers.split(", "), key=int))
    back = ", ".join(reversed(words.split(", ")))
    larger = ", ".join(n for n in several.split(", ") if int(n) > int(limit))
    assert problem["answer"] == (
        f"Answer: 1) {count}; 2.1) {added}; 2.2) {ordered}; 3) {back}; 4) {larger}"
    )


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
