"""The comparison with the twin: what is asked of whom, what is counted, and the card it ends in."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmark"))

import bundled_model
import model_card
from bundled_model import Answer, Run
from twin_figures import Timed, Verdict, latency, scores, summary

from sglang_multiverse.training.data import KINDS, Conversation, generate, sequential_text

TRAINING = {
    "command": ["python", "-m", "sglang_multiverse.training"],
    "steps": 1000,
    "tokens": 2000,
    "learned_tokens": 1500,
    "minutes": 90,
    "machine": {"cores": 2, "processor": "a processor", "torch": "2"},
    "examples": "0",
    "config": {"lr": 1e-3, "attention": "multiverse", "precision": "bf16", "out": "a"},
}


def verdict(right: bool = True, twin: bool = True, **other: Any) -> Verdict:
    fine = {
        "family": "chain_sum",
        "kind": "flat",
        "right": right,
        "right_unguarded": right,
        "twin_right": twin,
        "branches_as_asked": True,
        "opened_none": False,
        "well_formed": True,
        "well_formed_unguarded": True,
        "finished": True,
    }
    return Verdict(**{**fine, **other})


def timed(seconds: float, twin: float, *, group: str = "3", comparable: bool = True) -> Timed:
    return Timed(group, "chain_sum", comparable, seconds, twin, 120, 100, 1.5)


def test_the_same_problems_decide() -> None:
    found = scores([verdict(), verdict(twin=False), verdict(twin=False), verdict(right=False)])
    assert found["exact"] == 0.75 and found["twin_exact"] == 0.5
    assert (found["only_this_right"], found["only_twin_right"]) == (2, 1)


def test_only_right_answers_are_compared_in_time() -> None:
    found = latency([timed(1, 2), timed(2, 2), timed(2, 3), timed(1, 50, comparable=False)])
    assert found["ratio"] == {"q1": 1.25, "median": 1.5, "q3": 1.75}
    assert (found["pairs"], found["left_out"]) == (3, 1)
    assert latency([timed(1, 50, comparable=False)]) == {"pairs": 0, "left_out": 1}


def test_every_kind_is_judged_by_itself() -> None:
    none = {"opened_none": True}
    found = summary(
        [
            verdict(branches_as_asked=False),
            verdict(kind="nested", well_formed_unguarded=False),
            verdict(kind="single", right=False, **none),
            verdict(kind="sequential", branches_as_asked=False),
            verdict(kind="sequential", **none),
            verdict(kind="chat", family="chat", **none),
        ],
        [timed(1, 1, group="none"), timed(1, 2)],
    )
    assert found["multi_part"]["problems"] == 2 and found["all"]["problems"] == 5
    assert found["all"]["exact"] == 0.8
    assert found["multi_part"]["branches_as_asked"] == 0.5
    assert list(found["by_kind"]) == ["flat", "nested", "single", "sequential"]
    assert {kind: one["share"] for kind, one in found["none_opened"].items()} == {
        "single": 1,
        "sequential": 0.5,
        "chat": 1,
    }
    assert found["well_formed"]["all"] == {"answers": 6, "guarded": 1, "unguarded": 0.8333}
    assert found["well_formed"]["multi_part"] == {"answers": 2, "guarded": 1, "unguarded": 0.5}
    assert list(found["latency_by_branches"]) == ["none", "3"]
    assert found["latency_multi_part"]["ratio"]["median"] == 2


def test_problems_of_every_kind_and_none_of_training() -> None:
    chosen = bundled_model.choose(2)
    asked = [problem.prompt for problem in chosen if problem.kind != "chat"]
    assert len(set(asked)) > 0.95 * len(asked)
    assert {problem.split for problem in chosen} == {"held-out"}
    assert {problem.kind for problem in chosen} == set(KINDS)


def test_times_are_even_over_families() -> None:
    groups: dict[str, list[Conversation]] = {}
    for group, problem in bundled_model.to_time(2):
        groups.setdefault(group, []).append(problem)
    assert list(groups) == ["none", "2", "3", "4", "5", "6", "nested"]
    for group, problems in groups.items():
        counts = Counter(problem.family for problem in problems)
        assert set(counts.values()) == {2} and len(counts) == (6 if group == "none" else 7)
        if group.isdecimal():
            assert {problem.branches for problem in problems} == {(int(group),)}


def test_a_twin_has_the_same_settings_in_every_pass() -> None:
    config = {**TRAINING["config"], "attention": "causal", "precision": "fp32", "out": "b"}

    def differences(*twin: dict[str, Any]) -> list[str]:
        run = Run(Path("a"), (TRAINING, TRAINING))
        return bundled_model.differences(
            run, Run(Path("b"), tuple({"config": {**config, **other}} for other in twin))
        )

    assert not differences({}, {"continue_from": "b", "data": "more"})
    assert differences({}, {"lr": 1}) == differences({"lr": 1}, {}) == ["lr"]
    assert differences({}, {"new": 1}) == ["new"]
    assert differences({}) == ["number of passes"]


def test_a_run_is_told_with_those_it_continues(tmp_path: Path) -> None:
    first, second = {**TRAINING, "steps": 1}, {**TRAINING, "steps": 2}
    record = {**TRAINING, "steps": 3, "continued": {**second, "continued": first}}
    (tmp_path / "training.json").write_text(json.dumps(record))
    passes = bundled_model.trained(tmp_path)
    assert [one["steps"] for one in bundled_model.told(Run(tmp_path, passes))] == [1, 2, 3]


class Fake:
    """Answers as `generate` would; the model itself errs where there are two parts."""

    asked: list[tuple[str, dict[str, Any] | None]]

    def __init__(self, url: str, tokenizer: Any) -> None:
        self.url, self.tokenizer = url, tokenizer

    def flush(self) -> None:
        self.asked.append((self.url, None))

    def ask(self, problem: Conversation, multiverse: dict[str, Any] | None = None) -> Answer:
        text = problem.solution
        if self.url == "twin":
            text = sequential_text(text)
        elif problem.branches == (2,):
            text = text.replace("Answer: 1) ", "Answer: 1) 9")
        elif problem.branches == (3,):
            text = text.replace("</Goal>", "")
        self.asked.append((self.url, multiverse))
        return Answer(text, 10, 1.5, 1.0 if self.url == "model" else 2.0, True)

    ask_all = bundled_model.Model.ask_all


class Serving:
    def __init__(self, *, model: Path, **env: str) -> None:
        self.url = "twin" if model.name == "twin" else "model"

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_a_whole_run(tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Fake.asked = []
    monkeypatch.setattr(bundled_model, "Model", Fake)
    monkeypatch.setattr(bundled_model, "Server", Serving)
    monkeypatch.setattr(bundled_model, "packaged_run", lambda: Run(tiny_path, (TRAINING,)))
    monkeypatch.setattr(bundled_model, "run_of", lambda folder, room: Run(folder, (TRAINING,)))
    out, answers = tmp_path / "result.json", tmp_path / "answers.jsonl"
    flags = ["--twin", "twin", "--per-family", "2", "--pairs", "2", "--out", str(out)]
    assert bundled_model.main([*flags, "--clients", "1", "--answers", str(answers)]) == 0
    result = json.loads(out.read_text())
    problems = bundled_model.choose(2)
    several = [problem for problem in problems if problem.branches]
    wrong = sum(problem.branches == (2,) for problem in problems)
    broken = sum(problem.branches == (3,) for problem in problems)
    assert result["all"]["problems"] == sum(problem.kind != "chat" for problem in problems)
    assert result["multi_part"]["only_twin_right"] == wrong > 0
    assert result["multi_part"]["exact"] == round(1 - wrong / len(several), 4)
    assert result["multi_part"]["twin_exact"] == 1
    assert result["multi_part"]["branches_as_asked"] == round(1 - broken / len(several), 4) < 1
    assert result["well_formed"]["multi_part"]["guarded"] == round(1 - broken / len(several), 4)
    assert {one["share"] for one in result["none_opened"].values()} == {1}
    assert result["latency_multi_part"]["ratio"]["median"] == 2
    # Wrong answers, and right ones without the branches: neither is compared.
    assert result["latency_by_branches"]["2"] == {"pairs": 0, "left_out": 14}
    assert result["latency_by_branches"]["3"] == {"pairs": 0, "left_out": 14}
    assert result["latency_by_branches"]["4"]["pairs"] == 14

    # With the guard, without it, the twin: never two at once.
    n = len(problems)
    assert Fake.asked[: 3 * n] == (
        [("model", {"guard": True})] * n + [("model", {"guard": False})] * n + [("twin", None)] * n
    )
    # Each one after a flush, and whoever was second is first the next time.
    alone = [url for url, _ in Fake.asked[3 * n :]]
    assert alone[::2] == alone[1::2]
    assert alone[:8] == ["twin"] * 2 + ["model"] * 4 + ["twin"] * 2

    told = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [one["prompt"] for one in told] == [problem.prompt for problem in problems]
    assert {one["wanted"] == one["guarded"] for one in told if not one["right"]} == {False}

    text = model_card.card(result)
    assert "$" not in text and "| flat" not in text
    assert f"rightly by this model alone and {wrong} by the twin alone" in text


def test_a_timing_may_end_early(monkeypatch: pytest.MonkeyPatch) -> None:
    Fake.asked = []
    clock = iter(range(1000))
    monkeypatch.setattr(bundled_model.time, "monotonic", lambda: next(clock))
    problems = bundled_model.to_time(2)
    model, twin = Fake("model", None), Fake("twin", None)
    monkeypatch.setattr(bundled_model, "read", lambda *_: bundled_model.Reading(True, ()))
    # One look at the clock to begin with, one before each pair, one pair to warm up.
    timed = bundled_model.time_pairs(problems, model, twin, None, minutes=10 / 60)
    assert [one.group for one in timed] == [group for group, _ in problems[:8]]
    # The seven that were first have each family once, and each number of branches.
    assert len({problem.family for _, problem in problems[:7]}) == 7
    assert {one.group for one in timed} == {group for group, _ in problems}


def test_a_wrong_structure_is_seen(tiny_tokenizer: Any, tiny_tags: Any) -> None:
    problem = generate(0, "held-out", "flat", "number_sorting")
    good = Answer(problem.solution, 1, 1.0, 1.0, True)
    plain = Answer(sequential_text(problem.solution), 1, 1.0, 1.0, True)
    broken = Answer(problem.solution.replace("</Conclusion>", ""), 1, 1.0, 1.0, True)
    cut = Answer(problem.solution, 1, 1.0, 1.0, False)

    def judge(guarded: Answer, free: Answer) -> Verdict:
        return bundled_model.verdict(
            problem, bundled_model.Answers(guarded, free, plain), tiny_tokenizer, tiny_tags
        )

    fine = judge(good, good)
    assert fine.right and fine.twin_right and fine.branches_as_asked and not fine.opened_none
    assert fine.well_formed and fine.well_formed_unguarded and fine.finished
    assert not judge(good, broken).well_formed_unguarded
    assert not judge(cut, good).well_formed and not judge(cut, good).finished
    none = judge(plain, plain)
    assert none.opened_none and not none.branches_as_asked and none.right


def test_the_committed_card_is_what_the_results_render_to() -> None:
    result = json.loads(model_card.RESULTS.read_text())
    assert model_card.CARD.read_text() == model_card.card(result)
