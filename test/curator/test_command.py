"""The command: sources, settings, dry run, budget, show, report; errors are one line and exit 2."""

from __future__ import annotations

import asyncio
import io
import json
import re
import subprocess
import sys
import tempfile

import pytest

from sglang_multiverse.curator import __main__ as command
from sglang_multiverse.curator.__main__ import main
from sglang_multiverse.curator.demo import (
    Response,
    Server,
    bundled,
    completion,
    serving,
    write_source,
)

from .hostile import Hostile

KNOWN = bundled()


@pytest.fixture
def source(tmp_path):
    write_source(KNOWN, tmp_path / "source.jsonl")
    return tmp_path / "source.jsonl"


def run(where, out, url, *flags):
    return main(["run", str(where), "--out", str(out), "--base-url", url, "--no-plots", *flags])


def rows(out):
    names = ("train", "held-out")
    lines = [line for name in names for line in (out / f"{name}.jsonl").read_text().splitlines()]
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--concurrency 0", "concurrency: 0 is out of range; allowed: from 1 to 4096"),
        ("--concurrency many", "concurrency: 'many' is not a whole number"),
        ("--timeout nan", "timeout: nan is out of range"),
        ("--temperature 3", "temperature: 3.0 is out of range; allowed: from 0 to 2"),
        ("--preset s2k", "preset: 's2k' is not one of plain, s1k"),
        ("--response-format xml", "response_format: 'xml' is not one of auto, json_schema, none"),
        ("--columns thought=x", "columns: 'thought=x' is not one of question=…"),
        ("--base-url localhost:30000", "base_url: 'localhost:30000' is no address such as http"),
        ("--base-url http://[x", "base_url: 'http://[x' is no address"),
        ("--base-url http://a:b/v1", "base_url: 'http://a:b/v1' is no address"),
        ("--extra-body [1]", "extra_body: '[1]', for outline, is no JSON object"),
        ("--extra-body {", "extra_body: '{', for outline, is no JSON object"),
        ('--extra-body {"a":NaN}', "extra_body: '{\"a\":NaN}', for outline, is no JSON object"),
        ('--extra-body {"n":2}', "extra_body: '{\"n\":2}', for outline, holds n, which"),
        ("--columns thinking=question", "columns: question and thinking are both 'question'"),
        ("--model \udcff", "model: '\\udcff' is not UTF-8"),
        ("--only 6", "only: 6 is out of range; allowed: from 0 to 5"),
        ("--max-cost 5", "max_cost: needs price_in or price_out"),
        ("--tokenizer /nowhere", "tokenizer: /nowhere cannot be read"),
    ],
)
def test_a_bad_setting_is_one_line(flags, said, source, tmp_path, capsys):
    assert run(source, tmp_path / "out", "http://127.0.0.1:9/v1", *flags.split()) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {said}") and printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        (" ", "stage: '' is not one of outline, graph, refill, plan, rewrite"),
        ("dream model=x", "stage: 'dream' is not one of outline, graph, refill, plan, rewrite"),
        ("plan size=3", "stage: 'size=3' is not one of model=…, temperature=…"),
        ("plan temperature=9", "stage plan temperature: 9.0 is out of range"),
        ("plan max_answer_tokens=x", "stage plan max_answer_tokens: 'x' is not a whole number"),
    ],
)
def test_a_bad_setting_of_a_stage_is_one_line(stage, said, source, tmp_path, capsys):
    assert run(source, tmp_path / "out", "http://127.0.0.1:9/v1", "--stage", stage) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        ('{"question": "a"\n', "", "source.jsonl:1 is no JSON"),
        ("[1]\n", "", "source.jsonl:1 is no object"),
        ('{"question": "a", "reasoning": "b"}\n', "", "there are: question, reasoning"),
        ('{"question": "a", "thinking": 3}\n', "", "'thinking' is no text but 3"),
        ('{"question": "a", "thinking": " "}\n', "", "'thinking' is empty"),
        ('{"question": "a", "thinking": "\\ud800"}\n', "", "'thinking' is no text"),
        ('{"question": "a", "thinking": "b", "id": true}\n', "", "'id' is no text but True"),
        ("[" * 100_000 + "\n", "", "source.jsonl:1 is no JSON"),
        ('{"question": "a", "thinking": "b"}\n', "--columns answer=final", "has no column 'final'"),
        ('{"question": "a", "thinking": "b"}\n', "--preset s1k", "no column 'deepseek_thinking_tr"),
        (
            '{"question": "a", "thinking": "b", "id": 7}\n'
            '{"question": "c", "thinking": "d", "id": 7}\n',
            "",
            "source.jsonl:3: another row has the id '7' too",
        ),
        ("\n", "", "holds no rows"),
    ],
)  # fmt: skip
def test_a_bad_row_is_one_line_and_costs_nothing(text, flags, said, tmp_path, capsys):
    good = '{"question": "q", "thinking": "t"}\n'
    (tmp_path / "source.jsonl").write_text(good + text if "holds" not in said else text)
    said = said.replace("source.jsonl:1", "source.jsonl:2")
    hostile = Hostile(KNOWN)
    with hostile.server() as server:
        assert run(tmp_path / "source.jsonl", tmp_path / "out", server.url, *flags.split()) == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.startswith("error: ") and printed.count("\n") == 1
    assert not hostile.requests and not (tmp_path / "out").exists()


def test_rows_that_repeat_earlier_ones_are_left_out(source, tmp_path, capsys):
    lines = source.read_text()
    source.write_text(lines * 3)
    hostile = Hostile(KNOWN)
    with hostile.server() as server:
        assert run(source, tmp_path / "out", server.url) == 0
    assert "10 rows repeat earlier ones and are left out" in capsys.readouterr().err
    assert len(rows(tmp_path / "out")) == len(KNOWN) and set(hostile.calls.values()) == {1}


def test_what_is_not_there_is_one_line(source, tmp_path, capsys):
    with serving(KNOWN) as server:
        url = server.url
        assert run(tmp_path / "no.jsonl", tmp_path / "out", url) == 2
        assert "cannot read" in capsys.readouterr().err
        (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\n")
        assert run(tmp_path / "bytes.jsonl", tmp_path / "out", url) == 2
        assert "it is not UTF-8" in capsys.readouterr().err
        assert run("hf:" + str(tmp_path / "nowhere"), tmp_path / "out", url) == 2
        assert "cannot be loaded" in capsys.readouterr().err
    assert run(source, tmp_path / "out", url) == 2
    assert capsys.readouterr().err.startswith(f"error: base_url: {url} cannot be reached")
    assert main(["show", "x", "--out", str(tmp_path / "none")]) == 2
    assert "there are no records in" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["run"], ["run", "x", "--modle", "m"], ["dream"], []])
def test_a_bad_command_line_is_one_line(flags, capsys):
    with pytest.raises(SystemExit) as ended:
        main(flags)
    printed = capsys.readouterr().err
    assert ended.value.code == 2 and printed.startswith("error: ") and printed.count("\n") == 1


def test_a_bad_key_is_not_printed(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MY_KEY", "se\ncret")
    with serving(KNOWN) as server:
        assert run(source, tmp_path / "out", server.url, "--api-key-env", "MY_KEY") == 2
        said = capsys.readouterr().err
        assert said == "error: api_key_env: what MY_KEY holds cannot be a key\n"
        monkeypatch.setenv("MY_KEY", "secret\n")  # as a file's last line has it
        assert run(source, tmp_path / "out", server.url, "--api-key-env", "MY_KEY") == 0


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Response(500, b"oops"), "does not list its models (status 500); give --model"),
        (Response(body=b"<html>"), "does not list its models (its answer is no list)"),
        (Response(body=b'{"data": []}'), "lists none; give --model"),
        (Response(401, b"{}"), "refuses the key"),
        (None, "cannot be reached: Request timed out."),
    ],
)
def test_an_endpoint_that_is_none_is_one_line(answer, said, source, tmp_path, monkeypatch, capsys):
    async def models(self, first, body):
        if answer is None:
            await asyncio.sleep(60)
        return answer

    with serving(KNOWN) as server:
        monkeypatch.setattr(Server, "_answer", models)
        assert run(source, tmp_path / "out", server.url, "--timeout", "0.2") == 2
    printed = capsys.readouterr().err
    assert said in printed and printed.startswith("error: ") and printed.count("\n") == 1
    assert not (tmp_path / "out" / "train.jsonl").exists()


def test_a_byte_order_mark_is_no_part_of_the_first_row(source, tmp_path):
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    with serving(KNOWN) as server:
        assert run(source, tmp_path / "out", server.url) == 0
    assert len(rows(tmp_path / "out")) == len(KNOWN)


def test_an_unreachable_endpoint_writes_nothing_over(source, tmp_path):
    out = tmp_path / "out"
    with serving(KNOWN) as server:
        assert run(source, out, server.url) == 0
    before = {path.name: path.read_bytes() for path in out.glob("*.jsonl")}
    assert len(before) == 5
    assert run(source, out, server.url) == 2
    assert {path.name: path.read_bytes() for path in out.glob("*.jsonl")} == before


def test_another_run_on_the_same_records_is_refused(source, tmp_path, capsys):
    from sglang_multiverse.curator.store import Store

    with Store(tmp_path / "out"), serving(KNOWN) as server:
        assert run(source, tmp_path / "out", server.url) == 2
    assert "another run is writing to" in capsys.readouterr().err


def test_standard_input_and_columns(source, tmp_path, monkeypatch):
    lines = [json.loads(line) for line in source.read_text().splitlines()]
    renamed = [{"q": row["question"], "cot": row["thinking"]} for row in lines]
    text = "".join(json.dumps(row) + "\n" for row in renamed)
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    with serving(KNOWN) as server:
        flags = ["--columns", "question=q,thinking=cot", "--limit", "2"]
        assert run("-", tmp_path / "out", server.url, *flags) == 0
    made = rows(tmp_path / "out")
    assert len(made) == 2 and not any("<Think>" in row["messages"][1]["content"] for row in made)


def test_a_hugging_face_data_set_with_the_columns_of_s1k(tmp_path):
    import datasets

    table = {
        "question": [one.question for one in KNOWN],
        "deepseek_thinking_trajectory": [one.chain for one in KNOWN],
        "deepseek_attempt": [one.answer for one in KNOWN],
        "solution": ["right"] * len(KNOWN),
        "metadata": ["-"] * len(KNOWN),
    }
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_dict(table).to_parquet(tmp_path / "set" / "train.parquet")
    with serving(KNOWN) as server:
        where = "hf:" + str(tmp_path / "set")
        assert run(where, tmp_path / "out", server.url, "--preset", "s1k") == 0
    made = rows(tmp_path / "out")
    assert len(made) == len(KNOWN) and {row["reference"] for row in made} == {"right"}
    assert {row["family"] for row in made} == {"set"}


def test_a_dry_run_counts_and_makes_nothing(source, tmp_path, capsys):
    hostile = Hostile(KNOWN)
    with hostile.server() as server:
        flags = ["--dry-run", "--price-in", "1", "--price-out", "2", "--model", "known"]
        assert run(source, tmp_path / "out", server.url, *flags) == 0
        said = capsys.readouterr().out
        assert "25" in said and "5 examples, about" in said and "cost" in said
        assert not hostile.requests and not (tmp_path / "out").exists()
        # What is there already is not counted again.
        assert run(source, tmp_path / "out", server.url, "--max-tokens", "6000") == 1
        left = 22 - hostile.calls.total()
        capsys.readouterr()
        assert run(source, tmp_path / "out", server.url, "--dry-run") == 0
        total = next(line for line in capsys.readouterr().out.splitlines() if "all " in line)
        assert left <= int(total.split()[1]) <= left + 3


@pytest.mark.parametrize(
    "flags", [["--max-tokens", "4000"], ["--max-cost", "0.004", "--price-in", "1"]]
)
def test_a_budget_stops_cleanly(flags, source, tmp_path, capsys):
    hostile = Hostile(KNOWN)
    with hostile.server() as server:
        assert run(source, tmp_path / "out", server.url, *flags, "--concurrency", "2") == 1
        captured = capsys.readouterr()
        assert "stopped: the budget is used up" in captured.err
        first = hostile.calls.copy()
        assert 0 < first.total() < 22
        assert run(source, tmp_path / "out", server.url) == 0
    assert set(hostile.calls.values()) == {1}  # nothing was paid for twice
    assert len(rows(tmp_path / "out")) == len(KNOWN)


def test_only_one_stage_is_asked_anew(source, tmp_path):
    hostile = Hostile(KNOWN)
    with hostile.server() as server:
        assert run(source, tmp_path / "out", server.url) == 0
        before, calls = rows(tmp_path / "out"), hostile.calls.copy()
        assert run(source, tmp_path / "out", server.url, "--only", "5") == 0
        asked = {stage for question, stage in hostile.calls if hostile.calls[question, stage] > 1}
        assert asked == {"rewrite"} and hostile.calls.total() == calls.total() + 4
        assert rows(tmp_path / "out") == before
        # An earlier one: what follows it stays until the whole is run, and is not paid for again,
        # since the answer is the same.
        assert run(source, tmp_path / "out", server.url, "--only", "2") == 0
        assert rows(tmp_path / "out") == before
        assert run(source, tmp_path / "out", server.url) == 0
    assert rows(tmp_path / "out") == before
    assert hostile.calls.total() == calls.total() + 4 + 5


def test_only_needs_what_stands_before_it(source, tmp_path, capsys):
    with serving(KNOWN) as server:
        assert run(source, tmp_path / "out", server.url, "--only", "5") == 1
    assert "outline was not asked before; run without --only first" in capsys.readouterr().err


def test_another_prompt_reruns_what_depends_on_it(source, tmp_path, monkeypatch):
    from sglang_multiverse.curator import pipeline
    from sglang_multiverse.curator import prompt as prompts

    hostile, given = Hostile(KNOWN), prompts.prompt
    with hostile.server() as server:
        assert run(source, tmp_path / "out", server.url) == 0

        def edited(name):
            return given(name) + (" Take care." if name == "plan" else "")

        monkeypatch.setattr(prompts, "prompt", edited)
        monkeypatch.setattr(pipeline, "prompt", edited)
        assert run(source, tmp_path / "out", server.url) == 0
    again = {stage for pair, n in hostile.calls.items() for stage in pair[1:] if n > 1}
    assert again == {"plan"}  # its answers were the same, so the stage after it has its records


def test_another_model_for_one_stage(source, tmp_path):
    hostile = Hostile(KNOWN)
    with hostile.server() as server:
        flags = ["--stage", "rewrite model=other temperature=0.6", "--stage", "plan top_p=0.9"]
        extra = ["--extra-body", '{"chat_template_kwargs": {"enable_thinking": false}}']
        assert run(source, tmp_path / "out", server.url, *flags, *extra) == 0
    assert all(r["chat_template_kwargs"] == {"enable_thinking": False} for r in hostile.requests)
    asked = {(r["model"], r["temperature"], r["top_p"]) for r in hostile.requests}
    assert asked == {("known", 0, 1), ("other", 0.6, 1), ("known", 0, 0.9)}


def test_examples_that_are_hardly_parallel_are_sequential(source, tmp_path):
    with serving(KNOWN) as server:
        assert run(source, tmp_path / "out", server.url, "--min-parallelism", "3") == 0
    assert {row["kind"] for row in rows(tmp_path / "out")} == {"sequential"}
    for row in rows(tmp_path / "out"):
        (one,) = [k for k in KNOWN if k.question.strip() == row["messages"][0]["content"].strip()]
        assert one.chain in row["messages"][1]["content"]


def test_what_cannot_become_parallel_enough_costs_three_calls(source, tmp_path):
    hostile = Hostile(KNOWN)
    with hostile.server() as server:
        assert run(source, tmp_path / "out", server.url, "--min-parallelism", "3") == 0
    assert {stage for _, stage in hostile.calls} == {"outline", "graph", "refill"}


def test_outlines_and_conclusions_count_against_parallelism(source, tmp_path):
    """A tree that would do, whose finished text does not, is written as a sequential example."""
    hostile = Hostile(KNOWN)
    with hostile.server() as server:
        assert run(source, tmp_path / "out", server.url, "--min-parallelism", "1") == 0
        most = max(rows(tmp_path / "out"), key=lambda row: row["degree_of_parallelism"])
        least = str(most["degree_of_parallelism"] + 0.001)
        assert run(source, tmp_path / "out", server.url, "--min-parallelism", least) == 0
    assert {row["kind"] for row in rows(tmp_path / "out")} == {"sequential"}
    assert any(stage == "rewrite" for _, stage in hostile.calls)


def test_remarks_are_said_once_and_a_better_answer_is_taken(source, tmp_path):
    from .hostile import changed

    hostile = Hostile(KNOWN, changed(lambda answer: answer["sentences"].clear()), ("rewrite",))
    with hostile.server() as server:
        assert run(source, tmp_path / "out", server.url) == 0
    assert not any(row["remarks"] for row in rows(tmp_path / "out"))
    told = [r["messages"][-1]["content"] for r in hostile.requests if len(r["messages"]) > 2]
    assert len(told) >= 3 and all("begins with" in text for text in told)


def test_a_remark_is_gone_when_a_later_stage_mends_it(source, tmp_path):
    def act(request, answer):
        if "groups" in answer:
            answer["groups"][0]["outlines"][0] = "Find what path 2 leaves."
        else:
            answer["outlines"].append({"path": "G1.1", "text": "1: Find the rest."})
        return completion(json.dumps(answer), request)

    hostile = Hostile(KNOWN, act, ("plan", "rewrite"), times=10**6)
    with hostile.server() as server:
        assert run(source, tmp_path / "out", server.url) == 0
    made = [row for row in rows(tmp_path / "out") if row["branches"]]
    assert made and not any(row["remarks"] for row in made)
    for row in made:
        assert "<Outline>\n1: Find the rest.\n</Outline>" in row["messages"][1]["content"]
    told = [r["messages"][-1]["content"] for r in hostile.requests if len(r["messages"]) > 2]
    assert all("the outline of G1.1: speaks of 'path 2'" in text for text in told) and told


def test_an_endpoint_that_fails_again_and_again_ends_the_run(tmp_path, capsys):
    from .hostile import status
    from .test_resume import many

    known = many(60)
    write_source(known, tmp_path / "source.jsonl")
    hostile = Hostile(known, status(500), times=10**6)
    with hostile.server() as server:
        flags = ["--retries", "0", "--concurrency", "2"]
        assert run(tmp_path / "source.jsonl", tmp_path / "out", server.url, *flags) == 1
    assert "stopped: the endpoint fails again and again" in capsys.readouterr().err
    assert hostile.calls.total() <= 12


def test_strict_takes_no_remarks(source, tmp_path):
    # Without new words for its sentences, a path begins with "First" or the like.
    import dataclasses

    plain = [dataclasses.replace(one, rewrites={}) for one in KNOWN]
    with serving(plain) as server:
        assert run(source, tmp_path / "out", server.url) == 0
        remarked = [row for row in rows(tmp_path / "out") if row["remarks"]]
        assert "begins with 'First,', as one of a sequence" in str(remarked)
        assert run(source, tmp_path / "out", server.url, "--strict") == 1
    failures = (tmp_path / "out" / "failures.jsonl").read_text().splitlines()
    assert len(failures) == len(remarked)
    assert json.loads(failures[0])["stage"] == "remarks"


def test_failed_examples_are_tried_again_when_asked(source, tmp_path, capsys):
    from .hostile import saying

    bad = Hostile(KNOWN, saying(lambda good: "no"), ("outline",), times=10**6)
    with bad.server() as server:
        assert run(source, tmp_path / "out", server.url, "--repairs", "0", "--rounds", "1") == 1
        calls = bad.calls.total()
        capsys.readouterr()
        assert main(["show", "example-1", "--out", str(tmp_path / "out")]) == 0
        said = capsys.readouterr().out
        assert "example-1 failed at stage outline: " in said and "outline" in said
        assert run(source, tmp_path / "out", server.url, "--repairs", "0", "--rounds", "1") == 1
        assert bad.calls.total() == calls
    good = Hostile(KNOWN)
    with good.server() as server:
        flags = ["--repairs", "0", "--rounds", "1", "--retry-failed"]
        assert run(source, tmp_path / "out", server.url, *flags) == 0
    assert len(rows(tmp_path / "out")) == len(KNOWN)
    told = good.requests[0]["messages"][1]["content"]
    assert "# An earlier attempt\n\nIt failed, so take care: the answer holds no JSON" in told


def test_show_and_report(source, tmp_path, capsys):
    out = str(tmp_path / "out")
    with serving(KNOWN) as server:
        assert run(source, out, server.url) == 0
    capsys.readouterr()
    assert main(["show", "example-2", "--out", out]) == 0
    said = capsys.readouterr().out
    assert "example-2: nested, degree of parallelism" in said
    # Piece by piece: a sentence with new words stands beside them, a nested path has its label.
    assert re.search(r"\[8\] Alternatively, .* path 2 +The colours differ", said)
    assert re.search(r"\[5\] Both red: .* path 1\.1 +Both red: ", said)
    assert re.search(r"  block of 2 +1\.1: Count the ordered", said)
    assert main(["show", "--out", out]) == 0
    assert "example-1: flat" in capsys.readouterr().out
    assert main(["report", "--out", out]) == 0
    said = capsys.readouterr().out
    stages = ["outline", "graph", "refill", "plan", "rewrite"]
    assert re.findall(r"^ (\w+) +\d", said, re.MULTILINE)[-5:] == stages and "cost" not in said
    assert main(["show", "example-99", "--out", out]) == 2
    assert "there are: example-1, example-2" in capsys.readouterr().err


def test_the_demo_runs(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    chains = (tmp_path / "chains.jsonl").read_text().splitlines()
    assert len(rows(tmp_path / "curated")) == len(chains)
    said = capsys.readouterr().out
    assert "stand-in" in said and "example-1: flat" in said and str(tmp_path / "curated") in said


def test_the_demo_names_no_file_that_is_gone(capsys):
    assert main(["demo"]) == 0
    said = capsys.readouterr().out
    assert "Nothing is kept." in said and tempfile.gettempdir() not in said


def test_plots_are_asked_for_before_anything_is_done(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["run", str(source), "--out", str(tmp_path / "out")]) == 2
    assert "pip install matplotlib, or pass --no-plots" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_not_installed_is_named(source, tmp_path, monkeypatch, capsys):
    from sglang_multiverse.curator import extras

    monkeypatch.setattr(extras, "NEEDED", ("sentencex", "no_such_module"))
    assert main(["run", str(source), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        "error: no_such_module not installed: pip install '.[curator]'\n"
    )


def test_optional_parts_are_imported_late():
    script = (
        "import sys, sglang_multiverse.curator.__main__;"
        "late = {'sentencex', 'rapidfuzz', 'matplotlib', 'datasets', 'torch'};"
        "assert not late & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_an_interrupt_says_how_to_go_on(source, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", interrupted)
    assert run(source, tmp_path / "out", "http://127.0.0.1:9/v1") == 130
    assert "the same command goes on from here" in capsys.readouterr().err
