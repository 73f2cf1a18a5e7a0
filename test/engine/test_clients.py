"""Real clients against a real server: what they send, what they get, what it adds up to."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from asking import chat_ids, chat_text, counters, header_tokens, paths_of, user, wait_until
from models import problems
from server import Server
from sglang_multiverse.structure import Role, TagTable, parse

pytestmark = pytest.mark.server

LIVE = {"multiverse": {"stream": "branches"}}
GREEDY: dict[str, Any] = {"model": "m", "temperature": 0, "max_tokens": 900}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as found:
        yield found


@pytest.fixture(scope="module")
def problem() -> problems.Problem:
    return problems.generate(0, "held-out", "flat")


@pytest.fixture(scope="module")
def nested() -> problems.Problem:
    return problems.generate(2, "held-out", "nested")


@pytest.fixture(scope="module")
def linear(client: OpenAI, problem: problems.Problem) -> Any:
    """The whole greedy answer, as the chat route gives it."""
    answer = client.chat.completions.create(messages=user(problem.prompt), **GREEDY)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].multiverse["branches"] >= 2
    return answer


def text_of(events: list[Any]) -> str:
    """The text of a stream, of either OpenAI route."""
    choices = [event.choices[0] for event in events if event.choices]
    return "".join((c.delta.content if hasattr(c, "delta") else c.text) or "" for c in choices)


# --- OpenAI ------------------------------------------------------------------


def test_chat_stream_is_the_answer(client: OpenAI, problem: problems.Problem, linear: Any) -> None:
    events = list(
        client.chat.completions.create(
            messages=user(problem.prompt),
            stream=True,
            stream_options={"include_usage": True},
            **GREEDY,
        )
    )
    assert text_of(events) == linear.choices[0].message.content
    assert events[-1].usage.completion_tokens == linear.usage.completion_tokens
    assert events[-1].usage.prompt_tokens == linear.usage.prompt_tokens
    assert len(events) > 50
    (last,) = [e.choices[0] for e in events if e.choices and e.choices[0].finish_reason]
    assert last.finish_reason == "stop"
    assert last.multiverse["tokens"] == linear.usage.completion_tokens


def test_completions_give_the_same_answer(
    client: OpenAI, problem: problems.Problem, linear: Any, tiny_tokenizer: Any
) -> None:
    prompt = chat_text(user(problem.prompt), tiny_tokenizer)
    answer = client.completions.create(prompt=prompt, **GREEDY)
    assert answer.choices[0].text == linear.choices[0].message.content
    assert answer.usage.completion_tokens == linear.usage.completion_tokens
    assert answer.choices[0].multiverse["branches"] == linear.choices[0].multiverse["branches"]
    events = list(
        client.completions.create(
            prompt=prompt, stream=True, stream_options={"include_usage": True}, **GREEDY
        )
    )
    assert text_of(events) == answer.choices[0].text
    assert events[-1].usage.completion_tokens == answer.usage.completion_tokens


def test_chat_logprobs(client: OpenAI, problem: problems.Problem, linear: Any) -> None:
    answer = client.chat.completions.create(
        messages=user(problem.prompt), logprobs=True, top_logprobs=2, **GREEDY
    )
    choice = answer.choices[0]
    rows = choice.logprobs.content
    assert len(rows) == answer.usage.completion_tokens
    text = "".join(row.token for row in rows)
    assert text.startswith(linear.choices[0].message.content)
    forced = [row for row in rows if row.logprob == -9999.0]
    assert len(forced) == choice.multiverse["forced_tokens"] > 0
    assert {row.token for row in forced} >= {"<Path>", "<Conclusion>"}
    for row in rows:
        if row.logprob != -9999.0:
            assert row.logprob <= 0
            assert len(row.top_logprobs) == 2
            # Greedy: the token is the best one.
            assert row.top_logprobs[0].token == row.token


def test_a_chat_stream_lists_the_log_probabilities_of_the_answer(
    client: OpenAI, problem: problems.Problem
) -> None:
    """One a token, the end token's included, whose chunk has no text."""
    asked = {"messages": user(problem.prompt), "logprobs": True, "top_logprobs": 2, **GREEDY}
    whole = client.chat.completions.create(**asked)
    stream = client.chat.completions.create(stream=True, **asked)
    told = [e.choices[0].logprobs for e in stream if e.choices and e.choices[0].logprobs]
    rows = [row for one in told for row in one.content]
    expected = whole.choices[0].logprobs.content
    assert len(rows) == len(expected) == whole.usage.completion_tokens
    for row, other in zip(rows, expected, strict=True):
        assert (row.token, row.bytes) == (other.token, other.bytes)
        assert row.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert len(row.top_logprobs) == len(other.top_logprobs)


def test_completions_logprobs(
    client: OpenAI, problem: problems.Problem, linear: Any, tiny_tokenizer: Any
) -> None:
    prompt = chat_text(user(problem.prompt), tiny_tokenizer)
    choice = client.completions.create(prompt=prompt, logprobs=2, **GREEDY).choices[0]
    rows = choice.logprobs
    assert "".join(rows.tokens).startswith(linear.choices[0].message.content)
    forced = [logprob is None for logprob in rows.token_logprobs]
    assert sum(forced) == choice.multiverse["forced_tokens"] > 0
    for is_forced, top in zip(forced, rows.top_logprobs, strict=True):
        assert bool(top) != is_forced


@pytest.fixture
def company(server: Server, tiny_tokenizer: Any) -> Iterator[None]:
    """Other requests, which keep the server busy while a test runs."""
    ids = [
        chat_ids(problems.generate(seed, "held-out", "flat"), tiny_tokenizer)
        for seed in range(30, 36)
    ]
    with ThreadPoolExecutor(6) as others:
        running = [others.submit(server.generate, one) for one in ids]
        yield
        assert all(len(one.result()["output_ids"]) > 1 for one in running)


def three(client: OpenAI, problem: problems.Problem, **kwargs: Any) -> list[str]:
    answer = client.chat.completions.create(
        model="m",
        messages=user(problem.prompt),
        temperature=kwargs.pop("temperature", 1.8),
        # Enough for all of it: where a budget cuts depends on which branch was ahead.
        max_tokens=900,
        n=3,
        **kwargs,
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    tokens = [choice.multiverse["tokens"] for choice in answer.choices]
    assert answer.usage.completion_tokens == sum(tokens)
    return [choice.message.content for choice in answer.choices]


def test_three_seeded_answers_can_be_repeated(client: OpenAI, problem: problems.Problem) -> None:
    first = three(client, problem, seed=11)
    # Each copy has a seed of its own; a sure model may still say the same thing twice.
    assert len(set(first)) >= 2
    assert any("<Path>" in text for text in first)
    assert three(client, problem, seed=11) == first
    assert three(client, problem, seed=12) != first


def test_company_does_not_change_a_seeded_answer(
    client: OpenAI, problem: problems.Problem, company: None
) -> None:
    beside = three(client, problem, seed=11)
    assert beside == three(client, problem, seed=11)


def test_three_answers_without_a_seed_differ(client: OpenAI, problem: problems.Problem) -> None:
    hot = {"temperature": 2.0}  # at which even a sure model wavers
    assert len({*three(client, problem, **hot), *three(client, problem, **hot)}) >= 3


# --- /generate ---------------------------------------------------------------


def test_generate_logprobs(
    server: Server, problem: problems.Problem, linear: Any, tiny_tokenizer: Any
) -> None:
    ids = chat_ids(problem, tiny_tokenizer)
    answer = server.generate(
        ids,
        return_logprob=True,
        top_logprobs_num=3,
        token_ids_logprob=[5, 6],
        return_text_in_logprobs=True,
    )
    meta = answer["meta_info"]
    assert answer["text"] == linear.choices[0].message.content
    rows = meta["output_token_logprobs"]
    assert [row[1] for row in rows] == answer["output_ids"]
    assert "".join(row[2] for row in rows).startswith(answer["text"])
    forced = [row[0] is None for row in rows]
    assert sum(forced) == meta["multiverse"]["forced_tokens"] > 0
    assert len(meta["output_top_logprobs"]) == len(meta["output_token_ids_logprobs"]) == len(rows)
    for is_forced, row, top, chosen in zip(
        forced,
        rows,
        meta["output_top_logprobs"],
        meta["output_token_ids_logprobs"],
        strict=True,
    ):
        if is_forced:
            assert not top
            assert not chosen
        else:
            assert top[0][:2] == row[:2]
            assert len(top) == 3
            assert [entry[1] for entry in chosen] == [5, 6]


def events_of(server: Server, **body: Any) -> list[dict[str, Any]]:
    with server.http.stream("POST", "/generate", json={**body, "stream": True}) as answer:
        answer.raise_for_status()
        data = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(line) for line in data[:-1]]


def test_generate_stream_is_the_answer(
    server: Server, nested: problems.Problem, tiny_tokenizer: Any
) -> None:
    ids = chat_ids(nested, tiny_tokenizer)
    whole = server.generate(ids, sampling_params={"max_new_tokens": 900}, return_logprob=True)
    events = events_of(
        server,
        input_ids=ids,
        sampling_params={"temperature": 0, "max_new_tokens": 900},
        return_logprob=True,
    )
    texts = [event["text"] for event in events]
    # Each chunk goes on where the last one ended: linear order, nothing taken back.
    assert all(new.startswith(old) for old, new in itertools.pairwise(texts))
    assert texts[-1] == whole["text"]
    last = events[-1]
    assert last["output_ids"] == whole["output_ids"]
    assert [row[1] for row in last["meta_info"]["output_token_logprobs"]] == last["output_ids"]
    assert last["meta_info"]["multiverse"]["depth"] == 2
    assert not any("multiverse" in event["meta_info"] for event in events[:-1])


def load(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.http.get("/v1/loads").json()["loads"][0]
    return found


def test_an_answer_of_several_is_aborted_by_the_id_its_client_gave(server: Server) -> None:
    params = {"n": 2, "temperature": 1, "max_new_tokens": 2000, "ignore_eos": True}
    body = {"text": "Once", "rid": "story", "sampling_params": params}
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(server.http.post, "/generate", json=body)
        wait_until(lambda: load(server)["num_running_reqs"] >= 2)
        server.http.post("/abort_request", json={"rid": "stor"})  # nobody's
        time.sleep(0.5)
        assert not asked.done()
        server.http.post("/abort_request", json={"rid": "story"}).raise_for_status()
        answers = asked.result(timeout=20).json()
    assert [one["meta_info"]["finish_reason"]["type"] for one in answers] == ["abort"] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_list_of_ids_for_one_prompt_is_refused(server: Server, stream: bool) -> None:
    answer = server.http.post("/generate", json={"text": "q", "rid": ["a"], "stream": stream})
    assert answer.status_code == 400
    assert "rid: expected a string" in answer.json()["error"]["message"]


# --- /v1/messages, /v1/responses ---------------------------------------------


@pytest.mark.parametrize("stop", ["</Conclusion>", None])
def test_messages_say_that_a_stop_sequence_ended_them(
    server: Server, problem: problems.Problem, stop: str | None
) -> None:
    body = {**GREEDY, "messages": user(problem.prompt), "stop_sequences": stop and [stop]}
    whole = server.http.post("/v1/messages", json=body).json()
    with server.http.stream("POST", "/v1/messages", json={**body, "stream": True}) as answer:
        lines = [line[6:] for line in answer.iter_lines() if line.startswith("data: ")]
    (last,) = [e for e in map(json.loads, lines) if e["type"] == "message_delta"]
    for told in (whole, last["delta"]):
        assert told["stop_reason"] == ("end_turn" if stop is None else "stop_sequence")
        assert told.get("stop_sequence") == stop
    assert last["usage"]["output_tokens"] == whole["usage"]["output_tokens"]


def test_new_weights_do_not_change_the_name(
    server: Server, client: OpenAI, tiny_path: Path, tmp_path: Path
) -> None:
    name = client.models.list().data[0].id
    weights = tmp_path / "weights"
    weights.symlink_to(tiny_path)
    told = server.http.post("/update_weights_from_disk", json={"model_path": str(weights)})
    assert told.json()["success"]
    assert client.models.list().data[0].id == name
    body = {"model": name, "input": "q", "max_output_tokens": 16, "store": False}
    server.http.post("/v1/responses", json=body).raise_for_status()


# --- live branches -----------------------------------------------------------


def expected_texts(ids: list[int], answer: list[int], tags: TagTable, tok: Any) -> dict[str, str]:
    by_path: dict[str, list[int]] = {}
    for path, token in zip(paths_of(ids, answer, tags), answer, strict=True):
        by_path.setdefault(path, []).append(token)
    return {
        path: tok.decode(own, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for path, own in by_path.items()
    }


def check_live(pieces: list[tuple[str, str]], expected: dict[str, str]) -> None:
    joined: dict[str, str] = {}
    for path, text in pieces:
        joined[path] = joined.get(path, "") + text
    assert joined == expected
    # They grow side by side: the path changes far more often than paths are many.
    changes = sum(a[0] != b[0] for a, b in itertools.pairwise(pieces))
    assert changes > 3 * len(expected)


@pytest.mark.parametrize("kind", ["problem", "nested"])
def test_live_branches(
    server: Server,
    client: OpenAI,
    kind: str,
    tiny_tokenizer: Any,
    tiny_tags: TagTable,
    request: pytest.FixtureRequest,
) -> None:
    asked: problems.Problem = request.getfixturevalue(kind)
    ids = chat_ids(asked, tiny_tokenizer)
    whole = server.generate(ids, sampling_params={"max_new_tokens": 900})
    expected = expected_texts(ids, whole["output_ids"], tiny_tags, tiny_tokenizer)
    assert len(expected) >= 4

    events = events_of(
        server, input_ids=ids, sampling_params={"temperature": 0, "max_new_tokens": 900}, **LIVE
    )
    deltas = [d for e in events for d in e["meta_info"].get("multiverse_deltas", ())]
    check_live([(path, text) for path, text in deltas], expected)
    assert events[-1]["text"] == whole["text"]

    chat = client.chat.completions.create(
        messages=user(asked.prompt), stream=True, extra_body=LIVE, **GREEDY
    )
    choices = [event.choices[0] for event in chat if event.choices]
    told = [(c.multiverse["path"], c.delta.content) for c in choices if c.delta.content]
    check_live(told, expected)
    assert choices[-1].multiverse["branches"] == len(expected) - 1

    completion = client.completions.create(
        prompt=chat_text(user(asked.prompt), tiny_tokenizer),
        stream=True,
        extra_body=LIVE,
        **GREEDY,
    )
    texts = [event.choices[0] for event in completion if event.choices]
    check_live([(c.multiverse["path"], c.text) for c in texts if c.text], expected)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"skip_special_tokens": False},
        {"skip_special_tokens": False, "no_stop_trim": True},
        {"stop": ["</Conclusion>\n</"]},
        {"stop": ["Answer:", "wer"], "no_stop_trim": True},
    ],
    ids=str,
)
def test_live_branches_add_up_to_the_linear_text(
    server: Server, problem: problems.Problem, tiny_tokenizer: Any, asked: dict[str, Any]
) -> None:
    """What ended the answer, its last token or a stop string, is cut off as it is there."""
    params = {"temperature": 0, "max_new_tokens": 900, **asked}
    ids = chat_ids(problem, tiny_tokenizer)
    events = events_of(server, input_ids=ids, sampling_params=params, **LIVE)
    texts: dict[str, str] = {}
    for event in events:
        for path, text in event["meta_info"].get("multiverse_deltas", ()):
            texts[path] = texts.get(path, "") + text
    last = events[-1]
    assert last["meta_info"]["finish_reason"]["type"] == "stop"
    # One block: the trunk's text is what stands before its branches, and after them.
    head, goal, tail = texts.pop("").partition("</Goal>")
    branches = "".join(texts[path] for path in sorted(texts))
    assert head + goal + branches + tail == last["text"]
    assert len(texts) == last["meta_info"]["multiverse"]["branches"] >= 2


# --- the command line --------------------------------------------------------


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_a_connection_outlives_the_time_that_clients_reuse_it(server: Server) -> None:
    """httpx reuses a connection for 5 s, in which SGLang's own setting would have closed it."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.auto_open = False  # one that was closed is not opened again behind our back
    connection.connect()
    for pause in (0, 5.5):
        time.sleep(pause)
        connection.request("GET", "/v1/models")
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
    connection.close()


def test_curl(server: Server, problem: problems.Problem, linear: Any) -> None:
    body = {**GREEDY, "messages": user(problem.prompt)}
    command = ["curl", "-sS", "--max-time", "60", f"{server.url}/v1/chat/completions"]
    command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == linear.choices[0].message.content
    assert choice["multiverse"]["branches"] == linear.choices[0].multiverse["branches"]


@pytest.mark.slow
def test_bench_serving(server: Server, tiny_path: Path, tmp_path: Path) -> None:
    asked = [problems.generate(seed, "held-out", "flat") for seed in range(8)]
    dataset, result = tmp_path / "problems.jsonl", tmp_path / "result.jsonl"
    dataset.write_text(
        "".join(
            json.dumps({"conversations": [{"content": p.prompt}, {"content": p.solution}]}) + "\n"
            for p in asked
        )
    )
    before = counters(server)
    command = [sys.executable, "-m", "sglang.bench_serving", "--backend", "sglang-oai-chat"]
    command += ["--base-url", server.url, "--model", str(tiny_path), "--dataset-name", "custom"]
    command += ["--dataset-path", str(dataset), "--num-prompts", str(len(asked))]
    command += ["--sharegpt-output-len", "500", "--disable-ignore-eos", "--disable-tqdm"]
    command += ["--output-file", str(result), "--output-details"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(result.read_text().splitlines()[-1])
    assert told["completed"] == len(asked)
    assert not any(told["errors"])
    after = counters(server)
    # A warm-up request comes first.
    assert after["requests"] - before["requests"] == len(asked) + 1
    assert after["forked_requests"] - before["forked_requests"] >= len(asked) // 2


# --- what the answer says of itself ------------------------------------------


def test_metadata_and_counters_add_up(
    server: Server, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    """Nothing but the prompt and the headers is prefilled, whatever the cache holds."""
    server.flush()
    before = counters(server)
    summaries = []
    closing = tiny_tags.id_of[Role.BRANCH_CLOSE]
    for kind in problems.KINDS:
        ids = chat_ids(problems.generate(3, "held-out", kind), tiny_tokenizer)
        for _ in ("cold", "warm"):
            answer = server.generate(
                ids, sampling_params={"max_new_tokens": 900}, return_logprob=True
            )
            meta = answer["meta_info"]
            told = meta["multiverse"]
            summaries.append(told)
            out = answer["output_ids"]
            assert meta["finish_reason"]["type"] == "stop"
            headers = header_tokens(ids, out, tiny_tags, tiny_tokenizer)
            rows = meta["output_token_logprobs"]
            closed = sum(row[0] is None and row[1] == closing for row in rows)
            assert told["forced_tokens"] == headers + closed
            assert told["prefilled_tokens"] + meta["cached_tokens"] == len(ids) + headers
            trace = parse([*ids, *out], tiny_tags)
            assert trace.well_formed, trace.defects
            counted = trace.statistics(len(ids))
            assert told["tokens"] == meta["completion_tokens"] == len(out) == counted.tokens
            for name in ("critical_path_tokens", "blocks", "branches", "depth"):
                assert told[name] == getattr(counted, name), name
            assert told["degree_of_parallelism"] == pytest.approx(counted.degree_of_parallelism)
            assert (told["max_concurrent_branches"] > 1) == (told["blocks"] > 0)
    assert sum(told["blocks"] > 0 for told in summaries) >= 4
    after = counters(server)
    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["requests"] == len(summaries)
    assert grown["forked_requests"] == sum(told["blocks"] > 0 for told in summaries)
    for name in ("blocks", "branches", "tokens", "critical_path_tokens", "forced_tokens"):
        assert grown[name] == sum(told[name] for told in summaries), name


def test_a_second_turn_reuses_a_parallel_answer(server: Server, client: OpenAI) -> None:
    """What branches wrote is found in the cache, and worth what a prefill would give."""
    server.flush()
    told = problems.generate(4, "held-out", "rounds").prompt
    first = client.chat.completions.create(messages=user(told), **GREEDY)
    assert first.choices[0].finish_reason == "stop"
    assert first.choices[0].multiverse["branches"] >= 4
    turns = [
        *user(told),
        {"role": "assistant", "content": first.choices[0].message.content},
        *user("How many does each have?"),
    ]
    asked = {**GREEDY, "max_tokens": 150}
    warm = client.chat.completions.create(messages=turns, **asked)
    cached = warm.usage.prompt_tokens_details.cached_tokens
    assert cached >= 0.95 * warm.usage.prompt_tokens
    server.flush()
    cold = client.chat.completions.create(messages=turns, **asked)
    assert cold.usage.prompt_tokens_details.cached_tokens == 0
    assert cold.choices[0].message.content == warm.choices[0].message.content
