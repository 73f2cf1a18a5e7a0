"""The curve that answers of known lengths make, and how few of them are asked for."""

from __future__ import annotations

import json

import pytest

from sglang_multiverse.evaluation.__main__ import main
from sglang_multiverse.evaluation.config import RunConfig
from sglang_multiverse.evaluation.ladder import Larger
from sglang_multiverse.evaluation.series import make_series
from sglang_multiverse.evaluation.store import Sample, Store
from sglang_multiverse.evaluation.tasks import Spec, open_task

from .known import STRUCTURE, Known, Said, question

PROBLEMS = 12
BUDGETS = (30, 60, 120)


@pytest.fixture(scope="module")
def problems():
    return list(open_task(Spec("bundled", seed=6_000_000, limit=PROBLEMS)).problems())


class Lengths:
    """Problem i takes 10 (i + 1) tokens, half of them on the longest path."""

    def __init__(self, problems, parallel):
        self.problems, self.parallel = problems, parallel

    def __call__(self, body, times):
        texts = [one.messages[-1]["content"] for one in self.problems]
        place = texts.index(question(body))
        tokens = 10 * (place + 1)
        options = body.get("multiverse", {})
        assert self.parallel or not options
        path = tokens // 2 if self.parallel else tokens
        share = max(
            tokens / body["max_tokens"], path / options.get("max_critical_tokens", 10**9), 0.0
        )
        text = self.problems[place].entry.solution if share <= 1 else "Half a"
        if share > 1:
            tokens, path = int(tokens / share), int(path / share)
        structure = {
            **STRUCTURE,
            "tokens": tokens,
            "critical_path_tokens": path,
            "degree_of_parallelism": tokens / path,
        }
        # As in SGLang, the last token of the budget is a cut even if it ends the answer.
        finish = "stop" if share < 1 else "length"
        return Said(text, finish, tokens, structure if self.parallel else None)


def run(parallel, sequential, out, *flags):
    # Under one name: who is asked tells their answers apart.
    with parallel.serve("same") as one, sequential.serve("same") as two:
        return main(
            [
                *("budget", "--out", str(out), "--limit", str(PROBLEMS), "--max-tokens", "1000"),
                *("--base-url", one.url, "--baseline-url", two.url),
                *("--budgets", ",".join(map(str, BUDGETS)), *flags),
            ]
        )


def accuracy(out):
    found = json.loads((out / "results.json").read_text())["series"]
    return {
        (one["about"]["role"], one["about"]["ladder"], one["about"]["budget"]): one["pass_at_1"][
            "value"
        ]
        for one in found
    }


EXPECTED = {
    **{("parallel", "total", budget): budget // 10 / PROBLEMS for budget in BUDGETS},
    **{("baseline", "total", budget): budget // 10 / PROBLEMS for budget in BUDGETS},
    **{("parallel", "critical", budget): min(budget // 5, 12) / PROBLEMS for budget in BUDGETS},
}


def test_the_curves_are_those_of_the_lengths(problems, tmp_path):
    known = Known(Lengths(problems, True)), Known(Lengths(problems, False))
    assert run(*known, tmp_path) == 0
    assert accuracy(tmp_path) == pytest.approx(EXPECTED)
    # All at the largest budget; below, only those that were not well within the smaller one.
    plain = 12 + 7 + 10
    assert len(known[1].bodies) == plain
    assert len(known[0].bodies) == plain + 12 + 1 + 7
    assert run(*known, tmp_path) == 0
    assert len(known[1].bodies) == plain and set(known[0].asked.values()) == {1}
    text = (tmp_path / "report.md").read_text()
    same = text[text.index("## At the same longest path") :].splitlines()
    row = next(line for line in same if line.startswith("| 30 |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1].startswith("50.0 (") and cells[6].startswith("25.0 (")
    assert cells[2] == "12 of 12" and cells[3] == "7" and cells[8] == "10"
    # Three problems that only the parallel one gets right within the path: 2 ÷ 2³.
    assert cells[11].startswith("+25.0 (") and cells[12] == "0.250"
    for name in ("budget.svg", "budget.png"):
        assert (tmp_path / name).stat().st_size > 5000


@pytest.mark.parametrize(
    ("ladder", "sample", "reused"),
    [
        ("total", {"finish": "stop", "tokens": 29}, True),
        ("total", {"finish": "stop", "tokens": 30}, False),
        # A plan whose branches do not fit ends the answer below its budget.
        ("total", {"finish": "length", "tokens": 20}, False),
        ("total", {"finish": "stop", "tokens": None}, False),
        ("critical", {"finish": "stop", "tokens": 50, "structure": STRUCTURE}, True),
        ("critical", {"finish": "stop", "tokens": 20}, False),
    ],
)
def test_what_a_smaller_budget_would_not_change(ladder, sample, reused, problems, tmp_path):
    whole = make_series(RunConfig(), Spec("bundled"), "m", 700)
    larger = whole.bounded(ladder, 60)
    with Store(tmp_path) as store:
        store.keep(larger.sample_key(problems[0], 0), Sample("answered", **sample), "text")
        found = Larger(store, [larger], ladder, 30)(problems[0], 0)
    assert (found is not None) is reused
    if found:
        assert found[0].reused == 60 and found[1] == "text"


def test_without_reuse_every_point_is_asked(problems, tmp_path):
    known = Known(Lengths(problems, True)), Known(Lengths(problems, False))
    assert run(*known, tmp_path, "--no-reuse") == 0
    assert accuracy(tmp_path) == pytest.approx(EXPECTED)
    assert (len(known[0].bodies), len(known[1].bodies)) == (6 * 12, 3 * 12)


def test_one_ladder_and_no_baseline(problems, tmp_path):
    known = Known(Lengths(problems, True))
    with known.serve("parallel") as server:
        code = main(
            [
                *("budget", "--out", str(tmp_path), "--limit", "4", "--task-seed", "6000000"),
                *("--base-url", server.url, "--budgets", "10", "--ladder", "critical"),
            ]
        )
    assert code == 0
    assert {body["max_tokens"] for body in known.bodies} == {700}
    assert accuracy(tmp_path) == pytest.approx({("parallel", "critical", 10): 0.5})


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "budgets: needs one or more"),
        (["--budgets", "8,x"], "budgets: 'x' is not a whole number"),
        (["--budgets", "8,8"], "budgets: a number stands there twice"),
        (["--budgets", "0"], "budgets: needs one or more"),
        (["--budgets", "8", "--ladder", "steep"], "ladder: 'steep' is not one of both, total"),
        (["--budgets", "8", "--baseline-model", "m"], "baseline_model: needs baseline_url"),
        (["--budgets", "8", "--task", "bundled,aime24"], "task: this command takes one"),
    ],
)
def test_what_is_wrong_is_one_line(flags, said, tmp_path, capsys):
    assert main(["budget", "--out", str(tmp_path), *flags]) == 2
    assert f"error: {said}" in capsys.readouterr().err
