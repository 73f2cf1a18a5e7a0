"""The replay benchmark: its answers, its ways, its loads, and what it makes of them."""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark.scripts import by_name
from models import problems
from sglang_multiverse.structure import parse, walk

ROOT = Path(__file__).resolve().parents[2]
REPLAY = ROOT / "benchmark/replay"


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The benchmark's modules by their names, and not beyond this file."""
    with by_name(monkeypatch, ROOT / "benchmark", REPLAY, under=ROOT / "benchmark"):
        yield


@pytest.fixture
def writer(tiny_tokenizer: Any, tiny_tags: Any) -> Any:
    return import_module("answers").Writer(tiny_tokenizer, tiny_tags)


def tree(writer: Any, *args: Any, **more: Any) -> Any:
    answers = import_module("answers")
    return answers.of_tree(answers.Tree(*args, **more), writer)


# --- answers -------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("branches", [2, 4])
def test_a_tree_is_what_it_says(writer: Any, branches: int, depth: int) -> None:
    answer = tree(writer, 9, branches, 20, depth=depth, before=5, after=4)
    trace = parse(answer.ids, writer.tags)
    assert trace.well_formed
    blocks = list(walk(trace.blocks))
    assert len(blocks) == sum(branches**level for level in range(depth))
    assert {len(block.branches) for block in blocks} == {branches}
    assert answer.forks == trace.statistics().depth == depth
    assert answer.path == trace.statistics().critical_path_tokens
    assert answer.degree == pytest.approx(trace.statistics().degree_of_parallelism)


def test_what_is_forced_is_counted_by_its_text(writer: Any, tiny_tokenizer: Any) -> None:
    answer = tree(writer, 9, 2, 20, depth=2)
    forced = ["\n<Path>\n1:", "\n<Path>\n1.1:", "\n<Conclusion>\n", "\n<Conclusion>\n"]
    encoded = [tiny_tokenizer.encode(text, add_special_tokens=False) for text in forced]
    assert answer.forced == sum(map(len, encoded))


TRACE = """Some text before it.
<Parallel>
<Goal>
<Outline>
1: the first thing
</Outline>
<Outline>
2: the other
</Outline>
</Goal>
<Path>
1: aaaa aaaa aaaa
</Path>
<Path>
2: bb
</Path>
<Conclusion>
both done
</Conclusion>
</Parallel>
And more after it."""


def windows(writer: Any, tmp_path: Path, *texts: str, **more: Any) -> Any:
    lines = [
        {
            "id": f"t{number}",
            "output": text,
            "balanced": text.count("<Path>") == text.count("</Path>"),
        }
        for number, text in enumerate(texts)
    ]
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    given = {"prompt": 8, "around": 4, "most": 500, "count": 3, **more}
    return import_module("answers").windows(path, writer, **given)


def test_a_window_is_a_block_with_some_text_around_it(
    writer: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    (one,) = windows(writer, tmp_path, TRACE)
    text = tiny_tokenizer.decode(one.ids)
    begin, end = TRACE.index("<Parallel>"), TRACE.index("</Parallel>") + len("</Parallel>")
    before, block, after = text.partition(text[text.index("<P") : text.rindex(">") + 1])
    assert TRACE[:begin].endswith(before) and TRACE[end:].startswith(after)
    assert len(writer.encode(before)) == len(writer.encode(after)) == 4
    # The white space at the two ends of a conclusion is written twice.
    assert block.replace("\n\n", "\n") == TRACE[begin:end]
    assert parse(one.ids, writer.tags).well_formed


def test_windows_are_flat_whole_and_not_too_long(writer: Any, tmp_path: Path) -> None:
    nested = TRACE.replace("bb", TRACE)
    short = TRACE.replace("aaaa aaaa aaaa", "a")
    cut = TRACE.partition("</Path>")[0]
    # Its block is whole; the text that gives its context is not.
    broken = f"{TRACE}\n</Path>"
    # More are asked for than there are.
    found = windows(writer, tmp_path, nested, cut, TRACE, short, short, broken, count=4)
    assert len(found) == 3
    assert {one.name for one in found} == {f"t{number}, block 1" for number in (2, 3, 4)}
    degrees = [one.degree for one in found]
    assert degrees == sorted(degrees) and degrees[0] < degrees[-1]
    most = min(len(one.ids) for one in found)
    assert all(len(one.ids) <= most for one in windows(writer, tmp_path, TRACE, short, most=most))
    assert windows(writer, tmp_path, TRACE, most=10) == []


# --- ways ----------------------------------------------------------------------------------


class Fake:
    """In a server's place: answers by the script, and remembers what it was asked."""

    def __init__(self, answer: Any, *, wrong: bool = False) -> None:
        self.answer, self.wrong = answer, wrong
        self.asked: list[dict[str, Any]] = []

    def post(self, url: str, json: dict[str, Any], **_: Any) -> Any:
        self.asked.append(json)
        params = json["sampling_params"]
        at = params["custom_params"]["replay"]["at"]
        ids = self.answer.ids[at : at + params["max_new_tokens"]]
        said = {"output_ids": [0] if self.wrong else ids, "meta_info": {}}

        async def reply() -> Any:
            await asyncio.sleep(0)
            return said

        class Context:
            status = 200

            async def __aenter__(self) -> Any:
                return SimpleNamespace(status=200, json=reply)

            async def __aexit__(self, *_: object) -> None:
                return None

        return Context()


def asked(writer: Any, answer: Any, way: str, seed: int = 3, **more: Any) -> tuple[Any, Fake, Any]:
    fake = Fake(answer, **more)
    asker = import_module("ways").Asker(fake, "", writer)
    return asyncio.run(asker.ask(way, answer, seed)), fake, asker


def pieces(writer: Any, tags: Any, answer: Any) -> tuple[Fake, Any, set[int]]:
    """Asked by a client that forks: each piece once, behind all that it sees and nothing else.

    Also where the tokens stand that nobody wrote.
    """
    reply, fake, asker = asked(writer, answer, "client")
    assert not reply.wrong
    prompt = asker.prompt(answer, 3)
    whole = [*prompt, *answer.ids]
    mask = import_module("sglang_multiverse.structure").layout(whole, tags).dense_mask()
    written: list[int] = []
    for body in fake.asked:
        params = body["sampling_params"]
        first = len(prompt) + params["custom_params"]["replay"]["at"]
        seen = [token for token, sees in zip(whole, mask[first], strict=True) if sees]
        assert body["input_ids"] == seen[:-1], "what the piece's first token sees, but for itself"
        written += range(first, first + params["max_new_tokens"])
    assert len(written) == len(set(written))
    return fake, asker, set(range(len(prompt), len(whole))) - set(written)


def test_a_client_forks_and_joins_two_blocks_one_after_the_other(
    writer: Any, tiny_tags: Any
) -> None:
    problem = problems.generate(0, "held-out", "rounds")
    answer = writer.answer("rounds", 9, writer.encode(problem.solution))
    assert len(answer.blocks) == 2
    pieces(writer, tiny_tags, answer)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_client_forks_and_joins(writer: Any, tiny_tags: Any, depth: int) -> None:
    answer = tree(writer, 9, 3, 10, depth=depth)
    fake, asker, headers = pieces(writer, tiny_tags, answer)
    blocks = list(walk(parse(answer.ids, tiny_tags).blocks))
    labels = {"1", "2", "3", *(f"{a}.{b}" for a in "123" for b in "123" if depth == 2)}
    forced = sum(len(writer.header(label)) for label in labels)
    assert len(headers) == forced + len(blocks) * len(writer.conclusion_header)
    assert (
        asker.requests
        == len(fake.asked)
        == sum(2 + len(b.branches) for b in blocks) - (len(blocks) - 1) * 1
    )
    assert len(fake.asked) == (5 if depth == 1 else 5 + 3 * 4)


def test_whole_answers(writer: Any) -> None:
    answer = tree(writer, 9, 2, 10)
    for way, options in (
        ("parallel", None),
        ("one-by-one", {"max_parallel_branches": 1}),
        ("plain", None),
    ):
        reply, fake, _ = asked(writer, answer, way)
        (body,) = fake.asked
        assert not reply.wrong and body.get("multiverse") == options
        assert body["sampling_params"]["max_new_tokens"] == len(answer.ids)
        assert asked(writer, answer, way, wrong=True)[0].wrong
    assert asked(writer, answer, "client", wrong=True)[0].wrong


def test_prompts_share_nothing(writer: Any) -> None:
    answer = tree(writer, 9, 2, 10)
    asker = asked(writer, answer, "plain")[2]
    prompts = [asker.prompt(answer, seed) for seed in range(400)]
    assert len({tuple(prompt) for prompt in prompts}) == 400
    assert {len(prompt) for prompt in prompts} == {9}
    assert not any(token in writer.tags.role_of for prompt in prompts for token in prompt)


# --- loads ---------------------------------------------------------------------------------


def test_arrivals_are_poissons() -> None:
    times = import_module("loops").arrivals(4.0, 4001, seed=1)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert times[0] == 0 and statistics.mean(gaps) == pytest.approx(0.25, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.25, rel=0.07)
    assert times[:50] == import_module("loops").arrivals(4.0, 50, seed=1)


def test_the_meter_is_read() -> None:
    text = (
        '# HELP meter:forwards_total\nmeter:forwards_total{kind="decode"} 7.0\n'
        "meter:host_seconds_total 0.5\nmeter:rows_held 3.0\nsglang:rows 9.0\n"
        'meter:forwards_created{kind="decode"} 1e9\n'
    )
    read = import_module("loops").read_meter(text)
    assert read["forwards decode"] == 7 and read["host_seconds"] == 0.5 and read["rows_held"] == 3
    assert "rows" not in read


class Askers:
    """In an asker's place: takes `seconds`, and counts how many are under way."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.requests, self.under_way, self.most = seconds, 0, 0, 0
        self.seeds: list[int] = []
        self.all_asked: asyncio.Event
        self.url, self.http = "", self

    async def ask(self, way: str, answer: Any, seed: int) -> Any:
        self.requests += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.seeds.append(seed)
        await asyncio.sleep(self.seconds)
        self.under_way -= 1
        return import_module("ways").Reply(self.seconds, self.seconds / 2, False, {})

    def post(self, *_: Any, **__: Any) -> Askers:
        return self

    get = post

    async def __aenter__(self) -> Askers:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def raise_for_status(self) -> None:
        return None

    async def text(self) -> str:
        said = {"host_seconds_total": self.requests, "rows_held": self.most, "slots_held": 9}
        return "".join(f"meter:{name} {value}\n" for name, value in said.items())


def test_a_closed_loop_keeps_its_clients_busy(writer: Any) -> None:
    answer, asker = tree(writer, 9, 2, 10), Askers(0.001)
    load = asyncio.run(import_module("loops").closed(asker, "plain", [answer], 5, 4, seed=100))
    assert len(load.asked) == load.requests == 20 and asker.most == 5
    assert sorted(asker.seeds) == list(range(100, 120))
    assert load.metered["host_seconds"] == 20 and load.metered["rows_held"] == 5
    assert load.metered["slots_held"] == 9  # the most there were, not what was gained


def test_an_open_loop_does_not_wait(writer: Any) -> None:
    """Nobody is answered before all have asked."""

    class Slow(Askers):
        async def ask(self, *args: Any) -> Any:
            if self.requests == 19:
                self.all_asked.set()
            found = asyncio.create_task(super().ask(*args))
            await self.all_asked.wait()
            return await found

    async def load() -> Any:
        asker = Slow(0.0)
        asker.all_asked = asyncio.Event()
        loops = import_module("loops")
        return await asyncio.wait_for(loops.opened(asker, "plain", [answer], 200.0, 20, 1), 60)

    answer = tree(writer, 9, 2, 10)
    assert len(asyncio.run(load()).asked) == 20


def metered(**more: float) -> dict[str, float]:
    return {
        "forwards extend": 4.0,
        "forwards decode": 46.0,
        "rows decode": 92.0,
        "forward_seconds extend": 0.02,
        "forward_seconds decode": 0.46,
        "busy_seconds extend": 0.01,
        "busy_seconds decode": 0.39,
        "host_seconds": 0.1,
        "rows_held": 3.0,
        "slots_held": 99.0,
        **more,
    }


def test_figures_of_a_load(writer: Any) -> None:
    answer = tree(writer, 9, 2, 10)
    loops, ways = import_module("loops"), import_module("ways")
    replies = [ways.Reply(seconds, 0.1, seconds > 3, {}) for seconds in (1.0, 2.0, 4.0)]
    load = loops.Load([loops.Asked(answer, reply) for reply in replies], 6.0, metered(), 3)
    said = import_module("tally").tally([load], alone=True)
    assert said["answers_s"] == 0.5 and said["wrong"] == 1 and said["requests"] == 3
    assert said["tokens_s"] == pytest.approx(len(answer.ids) / 2, abs=0.1)
    assert said["latency_s"] == {"p50": 2.0, "p99": 4.0}
    assert said["critical_token_ms"]["p50"] == pytest.approx(2000 / answer.path, abs=0.001)
    assert said["forwards"] == {"extend": 4, "decode": 46} and said["rows_a_decode"] == 2
    assert said["forward_ms"] == {"extend": 5.0, "decode": 10.0}
    assert said["host_ms_a_step"] == 2.0 and said["busy_ms_an_answer"] == 166.67
    assert said["most_rows"] == 3 and said["most_kv_tokens"] == 99
    extra = (50 - 3 * (answer.path - answer.forced)) / 3
    assert said["extra_forwards_a_fork"] == round(extra, 2)
    several = import_module("tally").tally([load], alone=False)
    assert "extra_forwards_a_fork" not in several
    unmetered = load.__class__(load.asked, 6.0, {}, 3)
    assert "forwards" not in import_module("tally").tally([unmetered], alone=True)


def planned(writer: Any, tmp_path: Path, seconds: float, **more: Any) -> tuple[Any, Any]:
    plan = import_module("plan")
    asker = Askers(seconds)
    given = {
        "structures": {"a": [tree(writer, 9, 2, 10)], "b": [tree(writer, 9, 4, 10)]},
        "ways": ["parallel", "plain"],
        "clients": [1, 4],
        "answers": 2,
        "turns": 2,
        "shares": [],
        "until": plan.time.monotonic() + 60,
        "open_seconds": 0.0,
        **more,
    }
    results = plan.Results(tmp_path / "out.json")
    askers = dict.fromkeys(given["ways"], asker)
    asyncio.run(plan.carry_out(plan.Plan(**given), askers, results))
    return json.loads(results.path.read_text()), results


def test_every_case_is_run_and_written(writer: Any, tmp_path: Path) -> None:
    said, results = planned(
        writer, tmp_path, 0.002, shares=[0.5, 0.9], open_seconds=1.0, clients=[4, 1]
    )
    assert [(case["clients"], case["structure"]) for case in said["closed"]] == [
        (4, "a"),
        (4, "b"),
        (1, "a"),
        (1, "b"),
    ]
    turns = [len(case["ways"]["plain"]["answers_s_by_turn"]) for case in said["closed"]]
    assert turns == [1, 1, 2, 2]
    assert [case["share"] for case in said["open"]] == [0.5, 0.9]
    best = max(case["ways"]["plain"]["tokens_s"] for case in said["closed"])
    mean = statistics.mean(case["tokens"] for case in said["closed"])
    assert said["open"][0]["rate"] == pytest.approx(0.5 * best / mean, rel=0.01)
    assert results.wrong == 0 and said["left_out"] == []


def test_what_does_not_fit_is_left_out(writer: Any, tmp_path: Path) -> None:
    plan = import_module("plan")
    said, _ = planned(
        writer, tmp_path, 0.05, until=plan.time.monotonic() + 10, clients=[1, 4096], answers=1
    )
    assert {case["clients"] for case in said["closed"]} == {1}
    assert len(said["left_out"]) == 2 and "4096 clients" in said["left_out"][0]
    said, _ = planned(writer, tmp_path, 0.001, ways=["parallel"], shares=[0.5], open_seconds=1.0)
    assert said["open"] == [] and "capacity is not known" in said["left_out"][0]


# --- tables --------------------------------------------------------------------------------


@pytest.fixture
def result(writer: Any, tmp_path: Path) -> dict[str, Any]:
    said, _ = planned(writer, tmp_path, 0.002, shares=[0.5, 0.9], open_seconds=1.0)
    for case in said["closed"]:
        case["ways"]["plain"]["answers_s"] = 2.0
        case["ways"]["parallel"]["answers_s"] = 3.0 + case["clients"]
    return {"command": "c", "model": "m", "note": "loaded", "machine": {"cores": 2}, **said}


def test_tables_say_what_was_measured(result: dict[str, Any]) -> None:
    report = import_module("report")
    rows = report.speedups(result).splitlines()[2:]
    assert len(rows) == 4 and rows[0].split("|")[6].strip() == "2.00"
    assert rows[3].split("|")[6].strip() == "3.50"
    page = report.page([result])
    assert "**loaded**" in page and "| 1 | 2.00 / " in page and "| 4 | 3.50 / " in page
    details = report.details(result).splitlines()
    assert len({line.count("|") for line in details}) == 1 and len(details) == 2 + 2 * 6


def test_a_page_is_changed_between_its_marks(result: dict[str, Any], tmp_path: Path) -> None:
    report = import_module("report")
    path, source = tmp_path / "page.md", tmp_path / "r.json"
    source.write_text(json.dumps(result))
    path.write_text(f"head\n{report.BEGIN}\nold\n{report.END}\ntail\n")
    for _ in range(2):  # the second time changes nothing more
        assert report.main([str(source), "--into", str(path)]) == 0
        text = path.read_text()
        assert text.startswith("head\n") and text.endswith("\ntail\n") and "old" not in text
        assert text.count(report.BEGIN) == 1 and "| 4 | 3.50 / " in text
    assert report.main([str(source), "--into", str(path), "--details"]) == 0
    assert "(performance/r.svg)" in path.read_text()
    assert "90% of" in path.read_text() and "90% of" not in text
    path.write_text("no marks")
    with pytest.raises(ValueError, match="are needed"):
        report.put_into(path, "x")


def test_a_figure_is_drawn_and_the_same_each_time(result: dict[str, Any], tmp_path: Path) -> None:
    figure = import_module("figure")
    drawn = []
    for name in "ab":
        figure.draw(result, tmp_path / name)
        drawn.append([(tmp_path / f"{name}.{kind}").read_bytes() for kind in ("svg", "png")])
    assert drawn[0] == drawn[1]
    text = drawn[0][0].decode()
    assert "degree of parallelism" in text and "answers at a time" in text and "ideal" in text


def test_a_command_is_shown_without_its_note_and_places(monkeypatch: pytest.MonkeyPatch) -> None:
    argv = ["x", "--traces", "/a/b/t.jsonl", "--note", "some words", "--clients", "1"]
    monkeypatch.setattr(sys, "argv", argv)
    shown = import_module("throughput").command()
    assert shown == "python benchmark/throughput.py --traces t.jsonl --clients 1"


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--windows", "2", "--traces", "none"], "--traces none"),
        (["--branches"], "--branches or --windows"),
        (["--ways", "all"], "invalid choice: 'all'"),
    ],
)
def test_bad_arguments_are_named(
    argv: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        import_module("throughput").parse(["--out", "o", *argv])
    assert named in capsys.readouterr().err
