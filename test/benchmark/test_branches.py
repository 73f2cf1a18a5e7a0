"""The benchmark's arithmetic, and that it does not look away from answers that differ."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from models import problems

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmark"))

import branches
import figures
from figures import Pair, Run


def answer(seconds: float, text: str = "same", count: int = 4, finish: str = "stop") -> Run:
    summary = {
        "tokens": 100,
        "branches": count,
        "degree_of_parallelism": 2.0,
        "max_concurrent_branches": count,
    }
    return Run(seconds, text, finish, summary)


def pair(batched: Run, alone: Run, seed: int = 0) -> Pair:
    return Pair(problems.generate(seed, "held-out", "flat"), batched, alone)


def test_medians_and_quartiles() -> None:
    pairs = [pair(answer(1.0), answer(seconds)) for seconds in (1.0, 2.0, 3.0, 4.0, 5.0)]
    row = figures.summarise(4, pairs)
    assert row is not None
    assert row["ratio"] == {"q1": 2.0, "median": 3.0, "q3": 4.0}
    assert row["batched_s"]["median"] == 1.0
    assert row["pairs"] == 5
    assert row["prompts"] == 1
    assert "| 4 | 3.00 (2.00–4.00) | 1.00 (1.00–1.00) | 3.00 (2.00–4.00) | 2.00 |" in (
        figures.markdown([row])
    )


def test_only_like_is_compared_with_like() -> None:
    cut, other = answer(9.0, finish="length"), answer(9.0, text="other")
    pairs = [pair(answer(1.0), answer(2.0)), pair(answer(1.0), cut), pair(answer(1.0), other)]
    row = figures.summarise(4, pairs)
    assert row is not None
    assert row["ratio"]["median"] == 2.0
    assert figures.summarise(4, pairs[1:]) is None


def test_what_differs_is_counted() -> None:
    tied, parted = (pair(answer(1.0), answer(1.0, text="other"), seed) for seed in (1, 2))
    cut = pair(answer(1.0), answer(1.0, finish="length"))
    found = figures.agreement(
        [pair(answer(1.0), answer(1.0)), tied, parted, cut], {tied.problem.prompt}
    )
    assert found["pairs"] == 4
    assert found["same_text_and_tokens"] == 1
    assert found["parted_at_a_tie"] == 1
    assert found["parted_otherwise"] == 1
    assert found["cut_by_the_budget"] == 1


@pytest.mark.parametrize(("gap", "tie"), [(1e-5, True), (0.1, False)])
def test_ties(gap: float, tie: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def tokens(self: object, prompt: str, options: dict[str, int]) -> list[dict[str, Any]]:
        best = "b" if options else "a"
        top = [{"logprob": -0.5}, {"logprob": -0.5 - gap}]
        return [{"token": "x", "top_logprobs": []}, {"token": best, "top_logprobs": top}]

    monkeypatch.setattr(branches.Client, "_tokens", tokens)
    assert branches.Client("http://x").is_tie("?") is tie


def test_as_many_problems_of_each_size() -> None:
    chosen = branches.choose(2)
    assert [len(problem.parts) for problem in chosen] == [n for n in range(2, 9) for _ in "ab"]
    assert len({problem.prompt for problem in chosen}) == len(chosen)


@pytest.mark.parametrize(("texts", "code"), [("ss", 0), ("st", 1)])
def test_a_whole_run(
    texts: str, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Fake:
        http = type("Http", (), {"get": lambda self, path: self, "json": lambda self: {}})()

        def __init__(self, url: str) -> None:
            self.asked: list[bool] = []

        def run(self, prompt: str, options: dict[str, int]) -> Run:
            self.asked.append(bool(options))
            return answer(2.0 if options else 1.0, texts[bool(options)])

        def is_tie(self, prompt: str) -> bool:
            return False

    @contextmanager
    def serving(args: object) -> Any:
        yield "http://x"

    monkeypatch.setattr(branches, "Client", Fake)
    monkeypatch.setattr(branches, "serving", serving)
    out = tmp_path / "out" / "branches.json"
    flags = ["--repeats", "2", "--problems", "1", "--out", str(out)]
    assert branches.main(flags) == code
    written = json.loads(out.read_text())
    assert written["command"].endswith("--repeats 2 --problems 1 --out branches.json")
    assert written["agreement"]["parted_otherwise"] == (14 if code else 0)
    assert [row["ratio"]["median"] for row in written["branches"]] == ([] if code else [2.0])
