"""Scripted answers: what each row is told to write next, on SGLang's real scheduler."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from modelless.scheduler import scheduler
from modelless.script import tokenizer
from modelless.toy import Toy
from sglang_multiverse.engine.http import page
from sglang_multiverse.engine.options import MultiverseArgs, OptionError
from sglang_multiverse.engine.script import (
    Next,
    Script,
    ScriptError,
    lift,
    read_scripts,
    refuse_users,
)
from sglang_multiverse.structure import parse, resolve_tags, walk

REPLAY = Path(__file__).resolve().parents[2] / "benchmark" / "replay"
PROMPT = 5


@pytest.fixture(scope="module")
def answers() -> Iterator[dict[str, list[int]]]:
    """Flat and nested trees, two blocks in a row, and plain text."""
    sys.path.insert(0, str(REPLAY))
    from answers import Tree, Writer, of_tree

    writer = Writer(tokenizer(), resolve_tags(tokenizer()))
    flat = of_tree(Tree(PROMPT, 3, 6, before=2, after=3), writer).ids
    nested = of_tree(Tree(PROMPT, 2, 4, depth=3, before=2, after=3), writer).ids
    yield {"flat": flat, "nested": nested, "two": [*flat, *nested], "plain": writer.plain(20)}
    sys.path.remove(str(REPLAY))
    sys.modules.pop("answers")


@pytest.fixture
def scripts(answers: dict[str, list[int]], tmp_path: Path) -> Path:
    path = tmp_path / "scripts.jsonl"
    path.write_text("".join(json.dumps({"name": n, "ids": i}) + "\n" for n, i in answers.items()))
    return path


def serve(path: Path, slots: int = 4096, rows: int = 64, **options: Any) -> Any:
    toy = Toy(tokenizer(), slots)
    flags = ("--skip-server-warmup", "--chunked-prefill-size", "32")
    overlap = options.pop("overlap", False)
    return scheduler(
        toy, *flags, slots=slots, rows=rows, overlap=overlap, replay=str(path), **options
    )


def ask(server: Any, prompt: list[int], count: int, script: object, **more: Any) -> str:
    custom = {"replay": script, **more}
    params = {"custom_params": custom, "max_new_tokens": count, "ignore_eos": True}
    rid: str = server.ask(prompt, **params)
    return rid


# Ample; and so few slots or rows that families and branches wait for each other.
@pytest.mark.parametrize(
    ("slots", "rows", "width"),
    [(4096, 64, 256), (4096, 64, 1), (600, 64, 256), (4096, 5, 256)],
)
@pytest.mark.parametrize("overlap", [False, True])
def test_all_are_answered_by_their_scripts(
    answers: dict[str, list[int]], scripts: Path, overlap: bool, width: int, slots: int, rows: int
) -> None:
    assert max(map(len, answers.values())) + 40 < 600 < 2 * sum(map(len, answers.values()))
    server = serve(scripts, slots, rows, overlap=overlap)
    asked = {}
    for number, (name, ids) in enumerate(answers.items()):
        for prompt in (PROMPT, 40):  # of more than a chunk
            prompts = [30 + number] * prompt
            options = {"max_parallel_branches": width}
            rid = ask(server, prompts, len(ids), {"script": name}, multiverse=options)
            asked[rid] = ids
    server.drain(3000)
    for rid, ids in asked.items():
        assert server.answers[rid].finish["type"] == "length"
        assert server.answers[rid].ids == ids
    server.check_drained()


def test_they_fork_as_they_are_written(answers: dict[str, list[int]], scripts: Path) -> None:
    server = serve(scripts)
    rid = ask(server, [30] * PROMPT, len(answers["two"]), {"script": "two"})
    most = 0
    while server.open:
        server.step()
        most = max([most, *(f.max_concurrent for f in server.families.values())])
    assert server.answers[rid].ids == answers["two"]
    tags = resolve_tags(tokenizer())
    blocks = list(walk(parse(answers["two"], tags).blocks))
    assert len(blocks) == 1 + 7 and most == 8  # the leaves of the nested one


@pytest.mark.parametrize("overlap", [False, True])
def test_without_forks_a_script_is_one_sequence_from_anywhere(
    answers: dict[str, list[int]], scripts: Path, overlap: bool
) -> None:
    server = serve(scripts, overlap=overlap, enable=False)
    ids = answers["nested"]
    whole = ask(server, [30] * 40, len(ids), {"script": "nested"})
    piece = ask(server, [30, *ids[:50]], 20, {"script": "nested", "at": 50})
    server.drain(500)
    assert server.answers[whole].ids == ids
    assert server.answers[piece].ids == ids[50:70]


def test_what_follows_is_counted_from_what_has_kv() -> None:
    script = Script(array("q", [7, 8, 9]), 1, {((2,), 6): 2})
    trunk = SimpleNamespace(origin_input_ids=[0] * 40)
    assert [script.next_of(trunk, length) for length in (32, 40, 41, 42)] == [None, 8, 9, None]
    branch = SimpleNamespace(origin_input_ids=[0] * 6, path=(2,))
    assert [script.next_of(branch, length) for length in (6, 7)] == [9, None]
    other = SimpleNamespace(origin_input_ids=[0] * 5, path=(2,))
    assert script.next_of(other, 5) is None


@pytest.mark.parametrize("enable", [False, True])
@pytest.mark.parametrize(
    ("script", "named"),
    [
        (None, "only replays"),
        ("flat", "only replays"),
        ({"at": 1}, "only replays"),
        ({"script": "none"}, "script='none': no such script"),
        ({"script": "plain", "at": 20}, "at=20: allowed is an integer in [0, 20)"),
        ({"script": "plain", "at": -1}, "at=-1"),
        ({"script": "plain", "at": True}, "at=True"),
    ],
)
def test_a_request_without_a_script_is_refused(
    scripts: Path, script: object, named: str, enable: bool
) -> None:
    server = serve(scripts, enable=enable)
    rid = ask(server, [30] * PROMPT, 8, script)
    server.drain(20)
    finish = server.answers[rid].finish
    assert finish["type"] == "abort" and finish["status_code"] == 400
    assert named in finish["message"]


def test_a_prompt_with_tags_is_refused(answers: dict[str, list[int]], scripts: Path) -> None:
    server = serve(scripts)
    rid = ask(server, answers["flat"], 8, {"script": "plain"})
    server.drain(20)
    assert "holds no tags" in server.answers[rid].finish["message"]


def test_a_health_check_needs_none(scripts: Path) -> None:
    server = serve(scripts)
    rid = server.ask([30] * PROMPT, rid="HEALTH_CHECK_1", max_new_tokens=1)
    server.drain(20)
    assert server.answers[rid].finish["type"] == "length"


def test_the_guard_has_the_last_word() -> None:
    logits = torch.zeros(2, 4)
    logits[0, 3] = -torch.inf  # as the guard leaves it
    logits[:, 1] = 50.0
    told = Next(torch.tensor([0, 1]), torch.tensor([3, 2]))
    lift(None, SimpleNamespace(multiverse_script=told), logits)
    assert logits.argmax(dim=-1).tolist() == [1, 2]
    half = torch.zeros(1, 4, dtype=torch.float16)
    lift(None, SimpleNamespace(multiverse_script=Next(*torch.tensor([[0], [2]]))), half)
    assert half.argmax() == 2 and half.isfinite().all()


def test_nothing_is_lifted_where_nothing_is_told() -> None:
    logits = torch.zeros(1, 4)
    lift(None, SimpleNamespace(), logits)
    assert not logits.any()


# --- the file and the server -------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("no json", "line 2: expected an object"),
        ('["a"]', "line 2: expected an object"),
        ('{"name": "b"}', "line 2: expected an object"),
        ('{"name": "b", "ids": [1, "x"]}', "line 2: expected an object"),
        ('{"name": 3, "ids": [1]}', "line 2: name=3"),
        ('{"name": "a", "ids": [1]}', "line 2: name='a'"),
    ],
)
def test_a_bad_file_is_named_by_its_line(tmp_path: Path, line: str, named: str) -> None:
    path = tmp_path / "f"
    path.write_text(f'{{"name": "a", "ids": [1, 2]}}\n{line}\n')
    with pytest.raises(ScriptError, match="--multiverse-replay") as raised:
        read_scripts(path)
    assert named in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="none: No such file"):
        read_scripts(tmp_path / "none")


LOCAL = {
    "host": "127.0.0.1",
    "api_key": None,
    "admin_api_key": None,
    "ssl_certfile": None,
    "skip_server_warmup": True,
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"host": "0.0.0.0"}, "--host 0.0.0.0"),
        ({"api_key": "k"}, "--api-key"),
        ({"admin_api_key": "k"}, "--admin-api-key"),
        ({"ssl_certfile": "c"}, "--ssl-certfile"),
        ({"skip_server_warmup": False}, "--skip-server-warmup"),
    ],
)
def test_what_serves_users_is_refused(change: dict[str, object], named: str) -> None:
    refuse_users(SimpleNamespace(**LOCAL))
    with pytest.raises(ScriptError) as raised:
        refuse_users(SimpleNamespace(**{**LOCAL, **change}))
    assert named in str(raised.value) and "benchmarks alone" in str(raised.value)


def test_the_scheduler_refuses_it_too(scripts: Path) -> None:
    with pytest.raises(ScriptError, match="warm-up"):
        scheduler(Toy(tokenizer(), 64), slots=64, rows=4, replay=str(scripts))


def test_a_bad_file_ends_the_scheduler(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="No such file"):
        serve(tmp_path / "none")


def test_the_option_is_a_path() -> None:
    with pytest.raises(OptionError, match="replay=3: expected a path"):
        MultiverseArgs(replay=3)  # type: ignore[arg-type]


def test_there_is_no_playground(monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[object] = []
    monkeypatch.setattr(page, "add_routes", lambda *args: added.append(args))
    for replay in ("f", None):
        support = SimpleNamespace(dialect=1, server=MultiverseArgs(replay=replay))
        monkeypatch.setattr(page, "support_of", lambda manager, found=support: found)
        page.before_serving(SimpleNamespace(tokenizer_worker_num=1), object())
        assert len(added) == (replay is None)
