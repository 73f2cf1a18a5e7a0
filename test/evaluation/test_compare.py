"""Two runs whose right answers are known."""

from __future__ import annotations

import json

import pytest

from sglang_multiverse.evaluation.__main__ import main
from sglang_multiverse.evaluation.config import RunConfig
from sglang_multiverse.evaluation.series import make_series
from sglang_multiverse.evaluation.store import Sample, Store
from sglang_multiverse.evaluation.tasks import Problem, Spec


def problem(task, place, seed=0):
    asked = [{"role": "user", "content": f"{task} {place} {seed}"}]
    return Problem(f"{place}", asked, "7", {"branches": str(place % 3)})


def record(out, right, tasks=("flat", "single"), count=20, seed=0):
    """The records of a run; `right` says whether the answer to the problem at a place is."""
    config = RunConfig()
    with Store(out) as store:
        store.claim("run")
        for task in tasks:
            series = make_series(config, Spec(task), "known", 700)
            problems = [problem(task, place, seed) for place in range(count)]
            store.begin(series, problems, 1)
            for place, one in enumerate(problems):
                good = right(task, place)
                facts = {"finish": "stop", "tokens": 40, "right": good, "extracted": "7"}
                store.keep(series.sample_key(one, 0), Sample("answered", **facts))


def test_what_is_better_where(tmp_path, capsys):
    a, b, out = (tmp_path / name for name in ("first", "second", "report"))
    record(a, lambda task, place: place < 8)
    record(b, lambda task, place: place < (20 if task == "flat" else 7))
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
    row = next(line for line in text.splitlines() if line.startswith("| single |"))
    assert row.endswith("| no difference shown |")
    assert "B is better: +27.5 points" in printed
    assert sum(one["problems"] for one in flat["groups"]["branches"].values()) == 20
    assert (out / "difference.svg").stat().st_size > 5000


def test_only_the_same_problems_are_compared(tmp_path, capsys):
    a, b, out = (tmp_path / name for name in ("first", "second", "report"))
    record(a, lambda task, place: True)
    record(b, lambda task, place: True, count=5)
    assert main(["compare", str(a), str(b), "--out", str(out)]) == 0
    assert "No difference shown: +0.0 points (+0.0 to +0.0) over 10" in capsys.readouterr().out
    found = json.loads((out / "results.json").read_text())
    assert found["tasks"][0]["left_out"]["only_in_a"] == 15
    assert "problems left out: 15 only in a" in (out / "report.md").read_text()


def test_the_same_name_is_not_the_same_problem(tmp_path, capsys):
    a, b = tmp_path / "first", tmp_path / "second"
    record(a, lambda task, place: True)
    record(b, lambda task, place: True, seed=1)
    assert main(["compare", str(a), str(b), "--out", str(tmp_path / "out")]) == 2
    assert "no task with a problem in common" in capsys.readouterr().err


def test_a_task_asked_in_two_ways_is_not_one_side(tmp_path, capsys):
    a = tmp_path / "first"
    record(a, lambda task, place: True)
    with Store(a) as store:
        store.begin(make_series(RunConfig(max_tokens=5), Spec("flat"), "known", 7), [], 1)
    assert main(["compare", str(a), str(a), "--out", str(tmp_path / "out")]) == 2
    assert "first: asks flat in several ways" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["none", "empty"])
def test_what_is_no_run(missing, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    folder = str(tmp_path / missing)
    assert main(["compare", folder, folder, "--out", str(tmp_path / "report")]) == 2
    assert "there are no records in" in capsys.readouterr().err


def test_other_records_are_no_run(tmp_path, capsys):
    with Store(tmp_path / "a") as store:
        store.claim("latency")
    a = str(tmp_path / "a")
    assert main(["compare", a, a, "--out", str(tmp_path / "report")]) == 2
    assert "a: holds no run to compare" in capsys.readouterr().err
