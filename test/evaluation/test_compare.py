"""Two runs whose right answers are known."""

from __future__ import annotations

import json

import pytest

from sglang_multiverse.evaluation.__main__ import main
from sglang_multiverse.evaluation.tasks import Spec, open_task

from .known import Known, Said, question


@pytest.fixture(scope="module")
def problems():
    found = {}
    for task in ("bundled-flat", "bundled-single"):
        for one in open_task(Spec(task, seed=6_000_000, limit=20)).problems():
            found[one.messages[-1]["content"]] = one
    return found


def run(problems, out, right, *flags):
    """`right` says whether the answer to the problem at a place of a kind is."""

    def script(body, times):
        problem = problems[question(body)]
        mine = [one for one in problems.values() if one.groups["kind"] == problem.groups["kind"]]
        good = right(problem.groups["kind"], mine.index(problem))
        return Said(problem.entry.solution if good else "Answer: none")

    with Known(script).serve() as server:
        fixed = ["--task", "bundled-flat,bundled-single", "--base-url", server.url]
        assert main(["run", "--limit", "20", "--out", str(out), *fixed, *flags]) == 0


def test_what_is_better_where(problems, tmp_path, capsys):
    a, b, out = (tmp_path / name for name in ("first", "second", "report"))
    run(problems, a, lambda kind, place: place < 8)
    run(problems, b, lambda kind, place: place < (20 if kind == "flat" else 7))
    assert main(["compare", str(a), str(b), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    found = json.loads((out / "results.json").read_text())
    flat, single = found["tasks"]
    assert (flat["a"], flat["b"], flat["better"], flat["worse"]) == (0.4, 1.0, 12, 0)
    assert flat["p"] == pytest.approx(2 / 2**12) and flat["shown"] == 1
    assert flat["p_holm"] == pytest.approx(4 / 2**12)
    assert (single["better"], single["worse"], single["p"], single["shown"]) == (0, 1, 1.0, 0)
    pooled = found["pooled"]
    assert (pooled["problems"], pooled["better"], pooled["worse"]) == (40, 12, 1)
    assert pooled["difference"] == pytest.approx(11 / 40)
    assert pooled["p"] == pytest.approx(2 * 14 / 2**13)
    text = (out / "report.md").read_text()
    assert "# second against first" in text and "**B is better: +27.5 points" in text
    row = next(line for line in text.splitlines() if line.startswith("| bundled-single |"))
    assert row.endswith("| no difference shown |")
    assert "B is better: +27.5 points" in printed
    assert sum(one["problems"] for one in flat["groups"]["branches"].values()) == 20
    assert (out / "difference.svg").stat().st_size > 5000


def test_only_the_same_problems_are_compared(problems, tmp_path, capsys):
    a, b, out = (tmp_path / name for name in ("first", "second", "report"))
    run(problems, a, lambda kind, place: True)
    run(problems, b, lambda kind, place: True, "--limit", "5")
    assert main(["compare", str(a), str(b), "--out", str(out)]) == 0
    assert "No difference shown: +0.0 points (+0.0 to +0.0) over 10" in capsys.readouterr().out
    found = json.loads((out / "results.json").read_text())
    assert found["tasks"][0]["left_out"]["only_in_a"] == 15
    assert "problems left out: 15 only in a" in (out / "report.md").read_text()


@pytest.mark.parametrize("missing", ["none", "empty"])
def test_what_is_no_run(missing, problems, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    folder = str(tmp_path / missing)
    assert main(["compare", folder, folder, "--out", str(tmp_path / "report")]) == 2
    assert "there are no records in" in capsys.readouterr().err


def test_runs_with_nothing_in_common(problems, tmp_path, capsys):
    a, b = tmp_path / "first", tmp_path / "second"
    run(problems, a, lambda kind, place: True, "--task", "bundled-flat")
    with Known(lambda body, times: Said("Answer: none")).serve() as server:
        flags = ["--task", "bundled-nested", "--limit", "2", "--base-url", server.url]
        assert main(["run", "--out", str(b), *flags]) == 0
    flags = ["--task", "bundled-flat", "--task-seed", "9000000", "--limit", "3"]
    assert main(["compare", str(tmp_path / "second"), str(b), "--out", str(tmp_path / "c")]) == 0
    a_only = tmp_path / "third"
    with Known(lambda body, times: Said("Answer: none")).serve() as server:
        assert main(["run", "--out", str(a_only), "--base-url", server.url, *flags]) == 0
    assert main(["compare", str(a_only), str(b), "--out", str(tmp_path / "c")]) == 2
    assert "no task with a problem in common" in capsys.readouterr().err
