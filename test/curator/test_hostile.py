"""Whatever the endpoint does: a mended example or a reported failure, never a wrong example."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path

import pytest

from sglang_multiverse.curator.__main__ import main
from sglang_multiverse.curator.demo import Response, bundled, completion, stage_of, write_source

from .hostile import Hostile, changed, disconnect, raw, saying, silent, status, trickling
from .test_resume import many

KNOWN = bundled()[:2]
FILES = ("train", "held-out", "train-sequential", "held-out-sequential")


def curate(folder: Path, hostile: Hostile, *flags: str, known=KNOWN) -> tuple[int, list, list]:
    """Exit code, rows and failures."""
    folder.mkdir(exist_ok=True)
    source = folder / "source.jsonl"
    write_source(known, source)
    with hostile.server() as server:
        run = ["run", str(source), "--out", str(folder / "out"), "--base-url", server.url]
        code = main([*run, "--no-plots", "--retries", "2", "--timeout", "1", *flags])
    return code, *results(folder / "out")


def results(out: Path) -> tuple[list, list]:
    def read(name):
        text = (out / f"{name}.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    return [read(name) for name in FILES], read("failures")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    code, rows, failures = curate(tmp_path_factory.mktemp("good"), Hostile(KNOWN))
    assert code == 0 and not failures and len(rows[0]) + len(rows[1]) == len(KNOWN)
    return rows


def first(answer, key):
    return answer[key][0]


def set_first(key, name, value):
    return changed(lambda answer: first(answer, key).update({name: value}))


def drop_last(key):
    return changed(lambda answer: answer[key].pop())


def overlap(answer):
    answer["spans"][1]["first"] -= 1


def gap(answer):
    answer["spans"][1]["first"] += 1


def cycle(answer):
    edge = first(answer, "edges")
    answer["edges"].append({**edge, "step": edge["uses"], "uses": edge["step"]})


def itself(answer):
    edge = first(answer, "edges")
    edge["uses"] = edge["step"]


def too_few(answer):
    first(answer, "groups")["outlines"].pop()


def empty_outline(answer):
    first(answer, "groups")["outlines"][0] = " "


def lose_number(request, answer):
    """One more sentence gets new words, without its number."""
    text = request["messages"][1]["content"]
    number, words = re.search(r"\[(\d+)\] (Both red: .*|So 2x - 2 = 6, .*)", text).groups()
    words = words.replace("132", "many").replace("2x - 2 = 6", "2x - 2 is that")
    answer["sentences"].append({"number": int(number), "text": words})
    return completion(json.dumps(answer), request)


def change_number(answer):
    sentence = answer["sentences"][0]
    sentence["text"] = sentence["text"].replace("1", "7").replace("8", "9") + " 77"


def too_far(answer):
    answer["sentences"][0]["text"] += " And this goes on and on about nothing at all." * 8


def outside(answer):
    answer["sentences"].append({"number": 1, "text": "The equation is another one."})


def twice(answer):
    answer["sentences"].append(answer["sentences"][0])


def empty_sentence(answer):
    answer["sentences"][0]["text"] = " "


# What is wrong with an answer, the stage, and what is said to the model or in the report.
WRONG = {
    "no steps": ("outline", changed(lambda a: a["steps"].clear()), "there is none"),
    "no title": ("outline", set_first("steps", "title", " "), "S1: has no title"),
    "another type": ("outline", set_first("steps", "substeps", "x"), "steps.0.substeps"),
    "an extra field": ("outline", set_first("steps", "why", "x"), "Extra inputs"),
    "cycle": ("graph", changed(cycle), "stands after it"),
    "invented step": ("graph", set_first("edges", "uses", "S99"), "no step 'S99'"),
    "self": ("graph", changed(itself), "uses itself"),
    "wrong number": ("refill", set_first("spans", "first", 999), "S1 is 999 to"),
    "overlap": ("refill", changed(overlap), "given twice"),
    "gap": ("refill", changed(gap), "left out"),
    "span of nobody": ("refill", set_first("spans", "step", "S77"), "no step 'S77'"),
    "a step left out": ("refill", drop_last("spans"), "left out at the end|has none"),
    "group of nobody": ("plan", set_first("groups", "group", "G9"), "no group 'G9'"),
    "no groups": ("plan", drop_last("groups"), "is left out"),
    "too few outlines": ("plan", changed(too_few), "has . paths"),
    "empty outline": ("plan", changed(empty_outline), "is empty"),
    "tag": ("plan", set_first("groups", "conclusion", "So </Path> is."), "holds the tag </Path>"),
    "invented result": ("plan", set_first("groups", "conclusion", "It is 987654."), "987654"),
    "lost number": ("rewrite", lose_number, "lost the number"),
    "changed number": ("rewrite", changed(change_number), "lost the number|can see"),
    "too far": ("rewrite", changed(too_far), "edit distance"),
    "sentence of no path": ("rewrite", changed(outside), "is in no path"),
    "sentence twice": ("rewrite", changed(twice), "is there twice"),
    "empty sentence": ("rewrite", changed(empty_sentence), "is empty"),
    "path of nobody": ("rewrite", changed(
        lambda a: a["outlines"].append({"path": "G7.1", "text": "x"})), "no path 'G7.1'"),
    "conclusion of nobody": ("rewrite", changed(
        lambda a: a["conclusions"].append({"group": "G7", "text": "x"})), "no group 'G7'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_mended(name, tmp_path, good):
    stage, act, said = WRONG[name]
    hostile = Hostile(KNOWN, act, (stage,))
    code, rows, failures = curate(tmp_path, hostile)
    assert code == 0 and not failures
    assert rows == good
    assert {n for (_, where), n in hostile.calls.items() if where == stage} == {2}
    told = [r["messages"][-1]["content"] for r in hostile.requests if len(r["messages"]) > 2]
    assert len(told) == len(KNOWN)
    assert all(re.search(said, text) for text in told), told


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_that_stays_wrong_is_a_reported_failure(name, tmp_path, capsys):
    stage, act, said = WRONG[name]
    hostile = Hostile(KNOWN, act, (stage,), times=10**6)
    code, rows, failures = curate(tmp_path, hostile, "--repairs", "1", "--rounds", "2")
    assert code == 1
    assert not any(rows)
    assert [failure["stage"] for failure in failures] == [stage] * len(KNOWN)
    assert all(re.search(said, failure["reason"]) for failure in failures), failures
    assert failures[0]["rounds"] == 2
    assert f"example-1: {stage}: " in capsys.readouterr().out
    # A question, an answer sent back once, and the same once more: no call beyond that.
    assert {n for (_, where), n in hostile.calls.items() if where == stage} == {4}
    # Where steps and text do not fit, the outline is asked anew; what fails later goes back to
    # the graph, with what was wrong and the groups that it speaks of.
    outlines = 1 if stage in ("plan", "rewrite") else 2
    assert {n for (_, where), n in hostile.calls.items() if where == "graph"} <= {2, 4}
    if stage != "outline":
        assert {n for (_, where), n in hostile.calls.items() if where == "outline"} == {outlines}
    told = [r["messages"][1]["content"] for r in hostile.requests if stage_of(r) == "graph"]
    if outlines == 1:
        again = [text for text in told if "# An earlier attempt" in text]
        assert len(again) == len(KNOWN) and all(re.search(said, text) for text in again)
        assert all("## Groups\n\nG1\n  G1.1: sentences " in text for text in again)


BROKEN = {
    "malformed": saying(lambda good: good[:-3]),
    "empty": saying(lambda good: ""),
    "prose only": saying(lambda good: "I would rather not."),
    "an array": saying(lambda good: f"[{good[:0]}]"),
    "deep": saying(lambda good: '{"a":' * 5000),
    "half a character": saying(lambda good: good.replace(': "', ': "\\ud800 ', 1)),
    "cut by length": saying(lambda good: good[: len(good) // 2], finish="length"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_mended(name, tmp_path, good):
    hostile = Hostile(KNOWN, BROKEN[name])
    code, rows, failures = curate(tmp_path, hostile)
    assert code == 0 and not failures and rows == good
    assert set(hostile.calls.values()) == {2}


def test_an_answer_that_is_always_cut_is_reported(tmp_path):
    hostile = Hostile(KNOWN, BROKEN["cut by length"], ("graph",), times=10**6)
    code, rows, failures = curate(tmp_path, hostile)
    assert code == 1 and not any(rows)
    assert all("was cut after" in failure["reason"] for failure in failures)


AROUND = {
    "prose": saying(lambda good: f"Sure! Here it is:\n{good}\nI hope that {{helps}}."),
    "fence": saying(lambda good: f"```json\n{good}\n```"),
    "thoughts": saying(lambda good: f'<think>Maybe {{"steps": []}}?</think>\n{good}'),
}


@pytest.mark.parametrize("name", AROUND)
def test_what_stands_around_an_answer_is_passed_over(name, tmp_path, good):
    hostile = Hostile(KNOWN, AROUND[name])
    code, rows, failures = curate(tmp_path, hostile)
    assert code == 0 and not failures and rows == good
    assert set(hostile.calls.values()) == {1}


WIRE = {
    "429": status(429, retry_after_ms="20"),
    "500": status(500, retry_after_ms="20"),
    "503 once": status(503),
    "disconnect": disconnect(0),
    "disconnect amid the body": disconnect(200),
}


@pytest.mark.parametrize("name", WIRE)
def test_what_goes_wrong_on_the_wire_is_tried_again(name, tmp_path, good):
    hostile = Hostile(KNOWN, WIRE[name], ("outline", "refill"))
    code, rows, failures = curate(tmp_path, hostile)
    assert code == 0 and not failures and rows == good
    assert {hostile.calls[one.question.strip(), "refill"] for one in KNOWN} == {2}


class Chaos(Hostile):
    """Now and then, at random, any of the faults."""

    def __init__(self, known, acts, seed, share):
        super().__init__(known, times=10**6)
        self._acts, self._draw, self._share = acts, random.Random(seed), share
        self.faults = 0

    async def respond(self, request):
        self._act = None
        stage = stage_of(request)
        if self._draw.random() < self._share:
            self.faults += 1
            self._act = self._draw.choice(
                [act for where, act in self._acts if where in ("", stage)]
            )
        return await super().respond(request)


@pytest.mark.parametrize("seed", range(3))
def test_all_faults_at_once_make_no_wrong_example(seed, tmp_path, capsys):
    # Those of the wording that every chain has a sentence for.
    unfit = ("lost number", "changed number", "too far", "sentence twice", "empty sentence")
    acts = [(stage, act) for name, (stage, act, _) in WRONG.items() if name not in unfit]
    acts += [("", act) for act in (*BROKEN.values(), *AROUND.values(), *WIRE.values())]
    acts += [("", silent(60)), ("", raw(b"{")), ("", raw(b"<html>", "text/html"))]
    known = many(15)
    _, meant, _ = curate(tmp_path / "good", Hostile(known), known=known)
    began = time.monotonic()
    # Long enough for good answers on a busy machine, and far from the 60 s of silence.
    flags = ["--timeout", "3", "--concurrency", "8"]
    chaos = Chaos(known, acts, seed, share=0.25)
    code, rows, failures = curate(tmp_path / "bad", chaos, *flags, known=known)
    assert code in (0, 1) and time.monotonic() - began < 300
    for made, should in zip(rows, meant, strict=True):
        by_id = {row["id"]: row for row in should}
        assert all(row == by_id[row["id"]] for row in made)
    done = {row["id"] for made in rows for row in made}
    assert len(done) + len(failures) == len(known)
    assert done.isdisjoint(failure["id"] for failure in failures)
    assert len(done) > len(known) / 2
    assert chaos.faults >= 3  # of about 20: which request gets one depends on who is first


def test_retry_after_is_waited_for(tmp_path, good):
    hostile = Hostile(KNOWN[:1], status(429, retry_after="2"), ("outline",))
    began = time.monotonic()
    code, *_ = curate(tmp_path, hostile, known=KNOWN[:1])
    assert code == 0
    assert time.monotonic() - began > 2


def test_silence_is_not_waited_out(tmp_path, good):
    hostile = Hostile(KNOWN, silent(60), ("graph",))
    began = time.monotonic()
    code, rows, failures = curate(tmp_path, hostile, "--timeout", "0.3")
    assert code == 0 and not failures and rows == good
    assert time.monotonic() - began < 20


def test_an_answer_that_trickles_in_is_not_waited_for(tmp_path, capsys):
    began = time.monotonic()
    flags = ["--timeout", "0.5", "--retries", "0"]
    code, rows, failures = curate(tmp_path, Hostile(KNOWN, trickling), *flags)
    assert code == 1 and not any(rows) and len(failures) == len(KNOWN)
    assert "is not finished: TimeoutError" in capsys.readouterr().err
    assert time.monotonic() - began < 20


ALWAYS = {
    "500": (status(500, retry_after_ms="10"), "500"),
    "silence": (silent(60), "timed out"),
    "no JSON": (raw(b"{"), "no JSON|no chat completion"),
    "a page": (raw(b"<html>", "text/html"), "no chat completion"),
    "no choices": (raw(b'{"choices": []}'), "no chat completion"),
    "null": (raw(b"null"), "no chat completion"),
    "a null choice": (raw(b'{"choices": [null]}'), "no chat completion"),
    "no message": (raw(b'{"choices": [{"index": 0}]}'), "no chat completion"),
    "a list": (raw(b'{"choices": [{"message": {"content": [1]}}]}'), "no chat completion"),
    "a number": (raw(b'{"choices": 5}'), "no chat completion"),
    "a string": (raw(b'"hello"'), "no chat completion"),
}


@pytest.mark.parametrize("name", ALWAYS)
def test_an_endpoint_that_stays_in_trouble_leaves_examples_for_later(name, tmp_path, good, capsys):
    act, said = ALWAYS[name]
    code, rows, failures = curate(
        tmp_path, Hostile(KNOWN, act, ("plan",), times=10**6), "--timeout", "0.1", "--retries", "1"
    )
    assert code == 1 and not any(rows)
    assert [failure["reason"] for failure in failures] == ["not finished"] * len(KNOWN)
    assert re.search(f"is not finished: .*({said})", " ".join(capsys.readouterr().err.split()))
    # Once it is well again, only what was not answered is asked.
    healthy = Hostile(KNOWN)
    code, rows, failures = curate(tmp_path, healthy)
    assert code == 0 and not failures and rows == good
    assert {stage for _, stage in healthy.calls} == {"plan", "rewrite"}


@pytest.mark.parametrize("usage", [{}, None, [], "many", {"prompt_tokens": None}, {"x": 1}])
def test_tokens_that_are_not_counted_are_estimated(usage, tmp_path, good):
    def act(request, answer):
        body = json.loads(completion(json.dumps(answer), request).body)
        body["usage"] = usage
        return Response(body=json.dumps(body).encode())

    code, rows, failures = curate(tmp_path, Hostile(KNOWN, act, times=10**6))
    assert code == 0 and not failures and rows == good
    assert " tokens." in (tmp_path / "out" / "README.md").read_text()


def test_half_a_character_in_the_body(tmp_path, good):
    def act(request, answer):
        return completion(f"\ud800 {json.dumps(answer)}", request)

    code, rows, failures = curate(tmp_path, Hostile(KNOWN, act, times=10**6))
    assert code == 0 and not failures and rows == good


def test_a_request_that_is_refused_fails_its_example_alone(tmp_path):
    hostile = Hostile(KNOWN, status(400), ("refill",), times=10**6)
    code, rows, failures = curate(tmp_path, hostile, "--response-format", "none")
    assert code == 1 and not any(rows)
    assert all("the endpoint refuses: " in failure["reason"] for failure in failures)


def refusing(field, message):
    """A 400 with `message` for requests with this field; good answers for the others."""

    def refuse(request, answer):
        if field in request:
            return Response(400, json.dumps({"error": {"message": message}}).encode())
        return completion(json.dumps(answer), request)

    return refuse


def test_guided_decoding_is_left_where_it_is_refused(tmp_path, good):
    refuse = refusing("response_format", "response_format is not supported")
    hostile = Hostile(KNOWN, refuse, times=10**6)
    code, rows, failures = curate(tmp_path, hostile)
    assert code == 0 and not failures and rows == good
    formats = [
        request["response_format"] for request in hostile.requests if "response_format" in request
    ]
    assert formats and formats[0]["json_schema"]["name"] == "outline"
    assert "response_format" not in hostile.requests[-1]


def test_an_endpoint_that_calls_the_limit_otherwise(tmp_path, good):
    refuse = refusing("max_tokens", "use max_completion_tokens instead")
    hostile = Hostile(KNOWN, refuse, times=10**6)
    code, rows, failures = curate(tmp_path, hostile)
    assert code == 0 and not failures and rows == good
    assert hostile.requests[-1]["max_completion_tokens"] == 8192


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_wrong_key_or_model_ends_the_run_in_one_line(code, tmp_path, capsys):
    folder = tmp_path / "x"
    folder.mkdir()
    write_source(KNOWN, folder / "source.jsonl")
    with Hostile(KNOWN, status(code), times=10**6).server() as server:
        run = ["run", str(folder / "source.jsonl"), "--out", str(folder / "out")]
        assert main([*run, "--base-url", server.url, "--no-plots"]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: base_url: ") and "\n" not in said
    assert not (folder / "out" / "train.jsonl").exists()
