"""A whole run against an endpoint whose answers are known: exactly the table that must come out."""

from __future__ import annotations

import json

import pytest

from sglang_multiverse.evaluation.__main__ import main
from sglang_multiverse.evaluation.store import Store
from sglang_multiverse.evaluation.tasks import Spec, open_task

from .known import STRUCTURE, Known, Said, question

SEED = 6_000_000


@pytest.fixture(scope="module")
def problems():
    found = open_task(Spec("bundled", seed=SEED, limit=12)).problems()
    return {json.dumps(one.messages[-1]["content"]): one for one in found}


def problem_of(problems, body):
    return problems[json.dumps(question(body))]


def run(url, out, *flags):
    return main(["run", "--limit", "12", "--base-url", url, "--out", str(out), *flags])


def read(out):
    (series,) = json.loads((out / "results.json").read_text())["series"]
    return series


WRONG = "Answer: 1) nothing; 2) nothing"


def test_the_table_is_the_one_that_the_answers_make(problems, tmp_path):
    """Four answers to each of twelve problems; what each is depends on problem and seed alone."""
    places = {one.id: number for number, one in enumerate(problems.values())}

    def script(body, times):
        problem = problem_of(problems, body)
        place, index = places[problem.id], body["seed"]
        if place < 3:  # always right
            said = Said(problem.entry.solution)
        elif place < 6:  # right once in four
            said = Said(problem.entry.solution if index == 0 else WRONG)
        elif place < 9:  # twice no answer, and cut twice
            said = Said("I do not know.", "stop" if index < 2 else "length")
        else:  # half right: a tie with one wrong answer
            said = Said(problem.entry.solution if index % 2 else WRONG)
        return Said(said.text, said.finish, 40, STRUCTURE)

    known = Known(script)
    with known.serve() as server:
        assert run(server.url, tmp_path, "--samples", "4", "--temperature", "0.8") == 0
    assert len(known.bodies) == 48
    assert {body["seed"] for body in known.bodies} == {0, 1, 2, 3}
    assert all(body["stream_options"] == {"include_usage": True} for body in known.bodies)
    found = read(tmp_path)
    counts = {
        "problems": 12,
        "samples": 48,
        "answered": 48,
        "failed": 0,
        "missing": 0,
        "right": 12 + 3 + 6,
        "cut": 6,
        "format_errors": 6,
        "ungraded": 0,
        "asked_again": 0,
    }
    assert {name: found[name] for name in counts} == counts
    assert found["pass_at_1"]["value"] == pytest.approx((3 + 3 / 4 + 3 / 2) / 12)
    # Of 4 samples with 1 right, 2 hold it in half of the draws; with 2 right, in 5 of 6.
    assert found["pass_at_k"]["2"]["value"] == pytest.approx((3 + 3 / 2 + 3 * 5 / 6) / 12)
    assert found["pass_at_k"]["4"]["value"] == pytest.approx((3 + 3 + 3) / 12)
    assert found["maj_at_k"]["4"]["value"] == pytest.approx((3 + 0 + 3 / 2) / 12)
    # The solutions have them, the others open no block; what was cut is not judged for its form.
    assert found["branches_as_asked"] == {"share": pytest.approx(21 / 48), "answers": 48}
    assert found["well_formed"] == {"share": 1.0, "answers": 42}
    assert found["structure"]["degree_of_parallelism"]["mean"] == pytest.approx(1.6)
    assert found["structure"]["all_tokens_over_all_critical"] == pytest.approx(1.6)
    kinds = found["groups"]["kind"]
    assert sum(group["problems"] for group in kinds.values()) == 12
    report = (tmp_path / "report.md").read_text()
    assert "| task | pass@2, % | pass@4, % |" in report
    row = next(line for line in report.splitlines() if line.startswith("| bundled | known |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2:4] == ["12", "48 of 48"]
    assert [cell.split(" ")[0] for cell in cells[4:7]] == ["43.8", "75.0", "37.5"]
    assert cells[7:] == ["6", "6", "0"]
    for name in ("accuracy.svg", "accuracy.png", "parallelism.svg"):
        assert (tmp_path / name).stat().st_size > 1000
    assert main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report.md").read_text() == report


def test_the_form_is_told_of_every_group(tmp_path):
    """The right number of branches in other blocks, a conclusion left open, a block unasked for."""
    problems = open_task(Spec("bundled", seed=SEED, limit=54)).problems()
    texts = {question({"messages": one.messages}): one for one in problems}
    nested = next(one for one in problems if one.groups["kind"] == "nested")
    flat = next(one for one in problems if one.branches == (3,))
    single = next(one for one in problems if one.groups["kind"] == "single")
    # The same number of branches in all, in one block.
    other = next(one for one in problems if one.branches == (sum(nested.branches),))
    said = {
        nested.id: other.entry.solution,
        flat.id: flat.entry.solution.replace("</Conclusion>", ""),
        single.id: flat.entry.solution,
    }

    def script(body, times):
        problem = texts[question(body)]
        return Said(said.get(problem.id, problem.entry.solution), structure=STRUCTURE)

    with Known(script).serve() as server:
        assert run(server.url, tmp_path, "--limit", "54") == 0
    found = read(tmp_path)
    assert found["branches_as_asked"] == {"share": pytest.approx(52 / 54), "answers": 54}
    assert found["well_formed"] == {"share": pytest.approx(53 / 54), "answers": 54}
    groups = found["groups"]
    counts = {name: one["problems"] for name, one in groups["kind"].items()}
    assert counts == {"flat": 35, "nested": 7, "sequential": 6, "single": 6}
    kinds = groups["kind"]
    assert kinds["nested"]["branches_as_asked"]["share"] == pytest.approx(6 / 7)
    assert kinds["single"]["branches_as_asked"]["share"] == pytest.approx(5 / 6)
    assert kinds["flat"]["branches_as_asked"]["share"] == 1
    assert kinds["flat"]["well_formed"]["share"] == pytest.approx(34 / 35)
    parts = groups["independent parts"]
    assert {name: one["problems"] for name, one in parts.items()} == {"no": 12, "yes": 42}
    assert parts["yes"]["well_formed"] == {"share": pytest.approx(41 / 42), "answers": 42}
    assert parts["no"]["branches_as_asked"]["share"] == pytest.approx(11 / 12)
    assert groups["branches"]["3"]["well_formed"]["share"] < 1
    row = next(
        line
        for line in (tmp_path / "report.md").read_text().splitlines()
        if line.startswith("| nested | 7 | 7 |")
    )
    assert row.endswith("| 85.7 | 100.0 |")


def test_a_run_asks_only_for_what_is_not_there(problems, tmp_path):
    known = Known(lambda body, times: Said(problem_of(problems, body).entry.solution))
    with known.serve() as server:
        assert run(server.url, tmp_path, "--limit", "5") == 0
        assert len(known.bodies) == 5
        assert run(server.url, tmp_path) == 0
        assert len(known.bodies) == 12
        assert run(server.url, tmp_path) == 0
        assert len(known.bodies) == 12 and set(known.asked.values()) == {1}
        # Another way of asking is another series, beside the first.
        assert run(server.url, tmp_path, "--max-tokens", "100") == 0
    assert len(known.bodies) == 24
    both = json.loads((tmp_path / "results.json").read_text())["series"]
    assert [one["pass_at_1"]["value"] for one in both] == [1.0, 1.0]
    # All right: resampling shows no spread, the exact interval does.
    assert both[0]["pass_at_1"]["low"] == pytest.approx(0.025 ** (1 / 12))


def test_an_endpoint_without_structure_and_usage(problems, tmp_path):
    def script(body, times):
        assert "multiverse" not in body and body["max_tokens"] == 77
        return Said(problem_of(problems, body).entry.solution)

    with Known(script).serve() as server:
        assert run(server.url, tmp_path, "--max-tokens", "77") == 0
    found = read(tmp_path)
    assert found["structure"] is found["branches_as_asked"] is found["well_formed"] is None
    assert "| bundled | 40 (40–40) | – |" in (tmp_path / "report.md").read_text()


def test_what_is_sent(problems, tmp_path):
    known = Known(lambda body, times: Said("Answer: none"))
    flags = [
        *("--multiverse", '{"max_depth": 2}', "--extra-body", '{"min_p": 0.1}'),
        *("--suffix", " Think.", "--system", "Be brief.", "--seed", "7", "--temperature", "0.5"),
    ]
    with known.serve() as server:
        assert run(server.url, tmp_path, "--limit", "1", *flags) == 0
    (body,) = known.bodies
    assert body["multiverse"] == {"max_depth": 2} and body["min_p"] == 0.1
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert body["messages"][-1]["content"].endswith(" Think.")
    assert (body["seed"], body["temperature"], body["max_tokens"]) == (7, 0.5, 700)


def test_answers_are_kept_with_their_metadata(problems, tmp_path):
    known = Known(
        lambda body, times: Said(problem_of(problems, body).entry.solution, structure=STRUCTURE)
    )
    with known.serve() as server:
        assert run(server.url, tmp_path, "--limit", "2") == 0
    assert main(["report", str(tmp_path), "--answers"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [line["problem"] for line in lines] == [one.id for one in problems.values()][:2]
    for line, problem in zip(lines, problems.values(), strict=False):
        assert line["text"] == problem.entry.solution and line["right"] is True
        assert line["structure"] == STRUCTURE and line["finish"] == "stop"
        assert 0 <= line["ttft"] <= line["seconds"] and line["tokens"] == 40


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--task", "aime99"], "task: 'aime99' is not one of bundled"),
        (["--samples", "2"], "samples: greedy answers are all the same"),
        (["--samples", "0"], "samples: 0 is out of range; allowed: from 1"),
        (["--temperature", "hot"], "temperature: 'hot' is not a number"),
        (["--temperature", "nan"], "temperature: nan is out of range"),
        (["--multiverse", "[]"], "multiverse: '[]' is no JSON object"),
        (["--base-url", "localhost"], "base_url: 'localhost' is no address"),
        (["--base-url", "http://127.0.0.1:9/v1"], "base_url: http://127.0.0.1:9/v1 cannot be"),
        (["--task", "maths"], "task_file: maths needs one"),
        (["--task", "bundled", "--task-file", "x"], "task_file: bundled generates its problems"),
        (["--task", "gym:none"], "task: reasoning-gym has no 'none'"),
    ],
)
def test_what_is_wrong_is_one_line(flags, said, tmp_path, capsys):
    assert main(["run", "--out", str(tmp_path), *flags]) == 2
    error = capsys.readouterr().err
    assert f"error: {said}" in error and error.count("\n") == 1


def test_a_directory_is_of_one_kind(tmp_path, capsys):
    with Store(tmp_path) as store:
        store.claim("run")
    with Known(lambda body, times: Said("no")).serve() as server:
        budget = ["budget", "--out", str(tmp_path), "--base-url", server.url, "--budgets", "8"]
        assert main([*budget, "--limit", "1"]) == 2
    assert "out: holds the records of `run`, not of `budget`" in capsys.readouterr().err


def test_list_shows_every_task(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    for name in ("bundled", "gym:NAME", "aime24", "aime25", "aime26", "math500", "maths", "gpqa"):
        assert name in shown
    assert "Apache-2.0" in shown and "sgl-eval" in shown
