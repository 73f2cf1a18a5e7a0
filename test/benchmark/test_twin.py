"""The measurement against the twin, rehearsed on endpoints that know the answers, and its card."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark.scripts import by_name
from evaluation.known import Flushing, Known, Said, question
from sglang_multiverse.bundled.manifest import Base, Manifest
from sglang_multiverse.evaluation import __main__ as evaluation
from sglang_multiverse.evaluation.tasks import Problem, Spec, open_task
from sglang_multiverse.training.data import sequential_text

ROOT = Path(__file__).resolve().parents[2]
BENCHMARK = ROOT / "benchmark"
LIMIT = 54
"""One problem of each kind, family and number of branches."""
TRAINING = {
    "command": ["python", "-m", "sglang_multiverse.training", "--seed", "0"],
    "steps": 1000,
    "tokens": 2000,
    "minutes": 90,
    "machine": {"cores": 2, "processor": "a processor"},
    "config": {"lr": 1e-3, "attention": "multiverse", "precision": "bf16", "out": "a"},
}
CAUSAL = {**TRAINING["config"], "attention": "causal", "precision": "fp32", "out": "b"}


@pytest.fixture(scope="module")
def scripts() -> Iterator[SimpleNamespace]:
    """The benchmark's modules by their names, and not beyond this file."""
    with pytest.MonkeyPatch.context() as patch, by_name(patch, BENCHMARK / "twin", under=BENCHMARK):
        names = ("lineage", "plan", "measure", "reports", "card")
        yield SimpleNamespace(**{name: import_module(name) for name in names})


def make_bundle(folder: Path, name: str, *passes: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    Manifest(name, Base("base", "base==1", "0"), {}).write(folder)
    record: dict[str, Any] = {}
    for one in passes:
        record = {**one, "continued": record} if record else one
    (folder / "training.json").write_text(json.dumps(record))
    return folder


class Endpoint(Known):
    """One of the two models: the text of each answer, cut where a budget says so."""

    def __init__(self, problems: list[Problem], text: Any) -> None:
        self.problems = {question({"messages": one.messages}): one for one in problems}
        self.text = text
        super().__init__(self.say)

    def say(self, body: dict[str, Any], times: int) -> Said:
        problem = self.problems[question(body)]
        options = body.get("multiverse", {})
        text = self.text(problem, options)
        parallel = "<Parallel>" in text
        # Ten tokens a branch and ten around them; the longest path has one branch.
        branches = sum(problem.branches or ()) if parallel else 0
        tokens, path = 10 + 10 * (branches or 2), 20 if parallel else 30
        finish = "stop"
        if tokens > body["max_tokens"] or path > options.get("max_critical_tokens", path):
            finish, text = "length", text[: len(text) // 2]
        structure = {
            "tokens": tokens,
            "critical_path_tokens": path,
            "degree_of_parallelism": tokens / path,
            "blocks": len(problem.branches or ()) if parallel else 0,
            "branches": branches,
            "depth": int(parallel),
        }
        return Said(text, finish, tokens, structure)


def of_model(problem: Problem, options: dict[str, Any]) -> str:
    """Wrong with two branches, no block with three; without the guard a tag too few with four."""
    text = str(problem.entry.solution)
    if problem.branches == (2,):
        return text.replace("Answer: 1) ", "Answer: 1) 9")
    if problem.branches == (3,):
        return sequential_text(text)
    if problem.branches == (4,) and not options.get("guard", True):
        return text.replace("</Conclusion>", "")
    return text


def of_twin(problem: Problem, options: dict[str, Any]) -> str:
    """Wrong on all single problems, and on those with five and six branches."""
    assert not options
    text = sequential_text(problem.entry.solution)
    wrong = problem.groups["kind"] == "single" or problem.branches in ((5,), (6,))
    return text.replace("Answer:", "Answer: 99)") if wrong else text


class Named(Flushing):
    def __init__(self, known: Known, name: str) -> None:
        super().__init__(known)
        self._models = (name,)


class Rehearsal:
    """Two endpoints in the place of the servers, and where everything goes."""

    def __init__(self, scripts: SimpleNamespace, folder: Path) -> None:
        self.scripts, self.folder = scripts, folder
        plan = scripts.plan
        self.problems = open_task(
            Spec("bundled", seed=plan.Settings().task_seed, limit=LIMIT)
        ).problems()
        self.bundle = make_bundle(folder / "bundle", "model", TRAINING, {**TRAINING, "steps": 3})
        config = {"config": CAUSAL}
        self.twin = make_bundle(
            folder / "twin", "twin", {**TRAINING, **config}, {**TRAINING, **config}
        )
        self.out = folder / "results"
        self.texts = {"bundle": of_model, "twin": of_twin}
        self.asked: list[dict[str, list[dict[str, Any]]]] = []

    @contextmanager
    def serving(self, settings: Any) -> Iterator[list[str]]:
        lineage = self.scripts.lineage
        sides = {side: Endpoint(self.problems, text) for side, text in self.texts.items()}
        bundles = {"bundle": Path(settings.bundle), "twin": Path(settings.twin)}
        self.asked.append({side: one.bodies for side, one in sides.items()})
        with (
            Named(sides["bundle"], lineage.served_as(bundles["bundle"])) as one,
            Named(sides["twin"], lineage.served_as(bundles["twin"])) as two,
        ):
            yield [one.url, two.url]

    def __call__(self, *flags: str) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.scripts.measure, "serving", self.serving)
            return self.scripts.measure.main(
                [
                    *("--bundle", str(self.bundle), "--twin", str(self.twin)),
                    *("--work", str(self.folder / "work"), "--out", str(self.out)),
                    *("--limit", str(LIMIT), "--budgets", "25,700", "--batch-sizes", "1,2"),
                    *("--rounds", "1", "--answers", "8", *flags),
                ]
            )

    def results(self, name: str) -> dict[str, Any]:
        return json.loads((self.out / name / "results.json").read_text())

    def card(self) -> str:
        return self.scripts.card.card(self.out, self.bundle, self.twin)


@pytest.fixture(scope="module")
def rehearsal(scripts: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """The whole measurement, interrupted before its fifth step and given again."""
    found = Rehearsal(scripts, tmp_path_factory.mktemp("twin"))
    whole = evaluation.main

    def interrupted(arguments: list[str]) -> int:
        if arguments[0] == "budget":
            signal.raise_signal(signal.SIGINT)
        return whole(arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "main", interrupted)
        assert found() == 130
    assert not (found.out / "budget").exists() and (found.out / "compare").exists()
    assert found() == 0
    return found


def count(problems: list[Problem], **groups: str) -> int:
    return sum(all(one.groups[k] == v for k, v in groups.items()) for one in problems)


def test_who_is_asked_what(rehearsal: Rehearsal) -> None:
    first, second = rehearsal.asked
    guarded = [body["multiverse"] for body in first["bundle"]]
    assert guarded == [{"guard": True}] * LIMIT + [{"guard": False}] * LIMIT
    assert len(first["twin"]) == LIMIT and not [b for b in first["twin"] if "multiverse" in b]
    # What is there is not asked for again.
    assert {"guard": False} not in [body.get("multiverse") for body in second["bundle"]]
    limits = {body.get("multiverse", {}).get("max_critical_tokens") for body in second["bundle"]}
    assert limits == {None, 25, 700}
    assert {"max_parallel_branches": 1} in [body.get("multiverse") for body in second["bundle"]]
    assert {25, 700} <= {body["max_tokens"] for body in second["twin"]}


def test_only_what_is_small_is_kept(rehearsal: Rehearsal) -> None:
    names = ["budget", "compare", "latency", "model", "twin", "unguarded"]
    assert sorted(path.name for path in rehearsal.out.iterdir()) == names
    kept = [path for path in rehearsal.out.rglob("*") if path.is_file()]
    assert {path.suffix for path in kept} == {".md", ".json", ".svg"}
    assert all(path.stat().st_size < 100_000 for path in kept if path.suffix == ".svg")
    for name in names:
        report = (rehearsal.out / name / "report.md").read_text()
        assert "python -m sglang_multiverse.evaluation" in report
        for line in report.splitlines():
            if line.startswith("!["):
                assert (rehearsal.out / name / line.split("(")[1].rstrip(")")).is_file()
    command = rehearsal.results("model")["commands"][-1]
    assert command.endswith(""" --multiverse '{"guard": true}' --out model""")


def test_the_figures_are_those_of_the_answers(rehearsal: Rehearsal) -> None:
    problems = rehearsal.problems
    two, three, four = (count(problems, kind="flat", branches=str(n)) for n in (2, 3, 4))
    five_or_six = sum(one.branches in ((5,), (6,)) for one in problems)
    single = count(problems, kind="single")
    assert min(two, three, four, five_or_six, single) > 0
    pooled = rehearsal.results("compare")["pooled"]
    assert (pooled["better"], pooled["worse"]) == (single + five_or_six, two)
    assert pooled["shown"] == 1
    (model,) = rehearsal.results("model")["series"]
    (unguarded,) = rehearsal.results("unguarded")["series"]
    assert model["right"] == LIMIT - two
    assert model["branches_as_asked"]["share"] == pytest.approx(1 - three / LIMIT)
    assert model["well_formed"] == {"share": 1.0, "answers": LIMIT}
    assert unguarded["well_formed"]["share"] == pytest.approx(1 - four / LIMIT)
    paired = {(one["ladder"], one["budget"]): one for one in rehearsal.results("budget")["paired"]}
    # Ten tokens for each of three branches are two too many in all, and none on the longest path;
    # of the twin's answers, 30 tokens long, none is whole with 25.
    assert set(paired) == {(ladder, at) for ladder in ("total", "critical") for at in (25, 700)}
    assert paired["critical", 25]["a"] == 0
    wholes = sum(sum(one.branches) > 0 and one.branches != (3,) for one in problems)
    assert paired["critical", 25]["b"] == pytest.approx((wholes - two) / LIMIT)
    assert paired["total", 25]["b"] == 0
    assert paired["critical", 700]["b"] == pytest.approx(model["right"] / LIMIT)
    assert list(rehearsal.results("latency")["latency"]["models"]) == [
        *("parallel", "one at a time", "sequential")
    ]


def cells(text: str, first: str) -> list[str]:
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_card_says_what_was_measured(rehearsal: Rehearsal) -> None:
    text, problems = rehearsal.card(), rehearsal.problems
    assert "$" not in text
    two = count(problems, kind="flat", branches="2")
    three = count(problems, kind="flat", branches="3")
    single = count(problems, kind="single")
    lost = single + sum(one.branches in ((5,), (6,)) for one in problems)
    assert "**This model is better: +" in text
    assert f"{lost} were answered rightly by this model alone and {two} by the twin" in text

    def shares(*right: int, of: int) -> list[str]:
        return [f"{100 * one / of:.1f}" for one in right]

    row = cells(text, "all")
    assert row[:4] == ["all", str(LIMIT), *shares(LIMIT - two, LIMIT - lost, of=LIMIT)]
    assert row[6:] == ["this model is better", *shares(LIMIT - three, of=LIMIT)]
    parts = sum(bool(one.branches) for one in problems)
    row = cells(text, "several tasks, in any order")
    assert row[1:4] == [str(parts), *shares(parts - two, parts - lost + single, of=parts)]
    assert row[7:] == shares(parts - three, of=parts)
    nested = count(problems, kind="nested")
    row = cells(text, "tasks with parts of their own")
    assert row[1:4] + row[6:] == [str(nested), "100.0", "100.0", "no difference shown", "100.0"]
    row = cells(text, "one task")
    assert row[1:4] == [str(single), "100.0", "0.0"]
    assert cells(text, "mixed")[1] == str(count(problems, family="mixed"))
    assert "that this model has, shown or not: nowhere." in text
    formed = cells(text, "without")
    four = count(problems, kind="flat", branches="4")
    assert formed[1:3] == [*shares(parts - four, of=parts), *shares(LIMIT - four, of=LIMIT)]
    assert cells(text, "with the guard")[1:3] == ["100.0", "100.0"]
    assert (
        cells(text, "25")[2].startswith("0.0 ") and cells(text, "25")[-1] == "this model is better"
    )
    sizes = {one["batch_size"]: one for one in rehearsal.results("latency")["latency"]["sizes"]}
    ratio = sizes[2]["ratios"]["sequential"]["seconds"]["p50"]
    (row,) = [one for one in text.splitlines() if one.startswith("| 2 |") and one.count("|") == 9]
    assert row.split("|")[4].strip().startswith(f"{ratio:.2f} (")
    opened = sizes[1]["ratios"]["sequential"]["by_branches"]
    assert sum(one["pairs"] for one in opened.values()) == 8
    assert cells(text, "none")[1] == str(opened["0"]["pairs"])
    # The training of both, pass by pass.
    assert cells(text, "this model, pass 2")[1] == "3" and cells(text, "twin")[1] == "1,000"
    assert "2 cores of a processor, fp32" in cells(text, "twin, pass 2")[4]


@pytest.mark.parametrize("name", ["model", "twin", "unguarded", "budget", "latency", "compare"])
def test_a_card_needs_every_report(name: str, rehearsal: Rehearsal, tmp_path: Path) -> None:
    out = Path(shutil.copytree(rehearsal.out, tmp_path / "results"))
    (out / name / "results.json").unlink()
    with pytest.raises(rehearsal.scripts.lineage.TwinError, match=f"{name}/results.json"):
        rehearsal.scripts.card.card(out, rehearsal.bundle, rehearsal.twin)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ("unguarded", "model", "model: asked with {'guard': False}"),
        ("model", "unguarded", "unguarded: asked with {'guard': True}"),
        ("twin", "model", "model: is of twin-"),
        ("model", "twin", "twin: is of model-"),
    ],
)
def test_one_report_is_not_taken_for_another(
    one: str, other: str, said: str, rehearsal: Rehearsal, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(rehearsal.out, tmp_path / "results"))
    shutil.rmtree(out / other)
    shutil.copytree(out / one, out / other)
    with pytest.raises(rehearsal.scripts.lineage.TwinError, match=said):
        rehearsal.scripts.card.card(out, rehearsal.bundle, rehearsal.twin)


def test_figures_of_other_weights_make_no_card(
    rehearsal: Rehearsal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_bundle(tmp_path / "other", "other", TRAINING, TRAINING)
    card, lineage = rehearsal.scripts.card, rehearsal.scripts.lineage
    for bundle, twin in ((other, rehearsal.twin), (rehearsal.bundle, other)):
        with pytest.raises(lineage.TwinError, match="measure again"):
            card.card(rehearsal.out, bundle, twin)
    flags = ["--results", str(rehearsal.out), "--bundle", str(rehearsal.bundle)]
    out = tmp_path / "card.md"
    assert card.main([*flags, "--twin", str(rehearsal.twin), "--out", str(out)]) == 0
    assert out.read_text() == rehearsal.card()
    assert card.main([*flags, "--twin", str(other), "--out", str(out)]) == 2
    assert "measure again" in capsys.readouterr().err


# --- twins ---------------------------------------------------------------------------------


def test_a_twin_has_the_same_settings_in_every_pass(scripts: SimpleNamespace) -> None:
    def differences(*twin: dict[str, Any]) -> list[str]:
        passes = [{"config": {**CAUSAL, **other}} for other in twin]
        return scripts.lineage.differences([TRAINING, TRAINING], passes)

    assert not differences({}, {"continue_from": "b", "data": "more"})
    assert differences({}, {"lr": 1}) == differences({"lr": 1}, {}) == ["lr"]
    assert differences({}, {"new": 1}) == ["new"]
    assert differences({}) == ["number of passes"]


def test_passes_come_in_their_order(scripts: SimpleNamespace, tmp_path: Path) -> None:
    runs = [{**TRAINING, "steps": steps} for steps in (1, 2, 3)]
    folder = make_bundle(tmp_path / "bundle", "model", *runs)
    assert [one["steps"] for one in scripts.lineage.passes_of(folder)] == [1, 2, 3]


def test_only_twins_are_measured(
    rehearsal: Rehearsal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = {**TRAINING, "config": {**CAUSAL, "lr": 2}}
    twin = make_bundle(tmp_path / "twin", "twin", {**TRAINING, "config": CAUSAL}, other)
    times = len(rehearsal.asked)
    assert rehearsal("--twin", str(twin)) == 2
    assert "error: twin: trained with other settings: lr" in capsys.readouterr().err
    assert rehearsal("--twin", str(tmp_path)) == 2
    assert "training.json cannot be read" in capsys.readouterr().err
    assert rehearsal("--rounds", "0") == 2 and rehearsal("--budgets", "0") == 2
    said = capsys.readouterr().err
    assert "rounds: 0 is out of range" in said and "budgets: needs one or more" in said
    assert len(rehearsal.asked) == times


# --- the plan ------------------------------------------------------------------------------


def test_a_plan_asks_nobody(rehearsal: Rehearsal, capsys: pytest.CaptureFixture[str]) -> None:
    times = len(rehearsal.asked)
    assert rehearsal("--plan") == 0
    assert "54 problems, about" in capsys.readouterr().err
    assert len(rehearsal.asked) == times


def test_the_time_follows_the_settings(scripts: SimpleNamespace) -> None:
    plan = scripts.plan
    whole = plan.seconds(plan.Settings())
    assert 60 < sum(whole.values()) / 60 < 80
    half = plan.seconds(plan.Settings(limit=162, rounds=1))
    assert half["model"] == pytest.approx(whole["model"] / 2)
    assert half["budget"] == pytest.approx(whole["budget"] / 2)
    assert 0.5 < half["latency"] / whole["latency"] < 0.55  # the warm-up is the same
    assert list(whole) == [step.name for step in plan.steps(plan.Settings(), "a", "b")]
    # Between what was measured: 4 and 16 clients.
    assert plan.rate("plain", 4) < plan.rate("plain", 8) < plan.rate("plain", 16)


def test_the_problems_are_new(scripts: SimpleNamespace) -> None:
    """Of the seed: none of its problems is one of the evaluation's default or of earlier seeds."""
    seeds = (0, 1_000_000, 2_000_000, 3_000_000, 5_000_000, 6_000_000)
    used = {
        problem.id.rpartition("/")[2]
        for seed in seeds
        for problem in open_task(Spec("bundled", seed=seed, limit=LIMIT)).problems()
    }
    new = open_task(Spec("bundled", seed=scripts.plan.Settings().task_seed)).problems()
    assert len(new) == scripts.plan.PROBLEMS
    assert not {problem.id.rpartition("/")[2] for problem in new} & used


def test_a_server_is_where_the_commands_say(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sglang_multiverse.launch_server import split_arguments

    bundle = make_bundle(tmp_path / "bundle", "model", TRAINING)
    monkeypatch.setattr(scripts.measure, "model_path", lambda *, bundle: tmp_path / "merged")
    server = scripts.measure.At(bundle, 31234, 2, 32)
    _, rest = split_arguments(server.command[3:], {})
    given = dict(pairwise(rest))
    assert given["--model-path"] == str(tmp_path / "merged")
    assert given["--port"] == "31234" and server.url == "http://127.0.0.1:31234"
    assert given["--served-model-name"] == scripts.lineage.served_as(bundle)
    assert server.env["OMP_NUM_THREADS"] == "2"
