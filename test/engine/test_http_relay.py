"""Results on the OpenAI routes, through SGLang's own serving code.

Only the tokenizer manager is made up: it yields what SGLang's would.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from sglang.srt.entrypoints.openai import serving_chat, serving_completions
from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest, CompletionRequest
from sglang.srt.managers.io_struct import GenerateReqInput

from sglang_multiverse.engine.http.relay import generate, handle_request, label_stream, relay_of
from sglang_multiverse.engine.http.support import Support
from sglang_multiverse.engine.options import MultiverseArgs, OptionError
from sglang_multiverse.structure import MULTIVERSE

SUMMARY = {"critical_path_tokens": 7, "degree_of_parallelism": 1.5, "branch_paths": ["1"]}
LIVE = {"stream": "branches"}


def output(text, finish=None, *, index=0, deltas=None, summary=None):
    meta = {"id": "r", "finish_reason": finish, "prompt_tokens": 1, "completion_tokens": 2}
    if deltas is not None:
        meta["multiverse_deltas"] = deltas
    if summary is not None:
        meta["multiverse"] = summary
    return {"text": text, "index": index, "output_ids": [1], "meta_info": meta}


STOP = {"type": "stop", "matched": 2}


class Request:
    """The part of a Starlette request that is read."""

    method = "POST"

    def __init__(self, path, body):
        self.url = SimpleNamespace(path=path)
        self.headers = {"content-type": "application/json"}
        self.state = SimpleNamespace()
        self.body = body

    async def json(self):
        return self.body


class Manager:
    """Yields the outputs it was given, through the hook on `generate_request`."""

    def __init__(self, outputs, dialect=MULTIVERSE, incremental=False):
        self.outputs = outputs
        self.incremental_streaming_output = incremental
        self.multiverse_support = Support(MultiverseArgs(), dialect, "it has no tags")
        self.seen = None

    async def _generate(self, obj, request):
        self.seen = obj
        for one in self.outputs:
            yield one

    def generate_request(self, obj, request=None):
        return generate(Manager._generate, self, obj, request)


@pytest.fixture(autouse=True)
def config(monkeypatch):
    """SGLang's published configuration, which a server would hold."""
    values = SimpleNamespace(
        incremental_streaming_output=False,
        stream_response_default_include_usage=False,
        enable_cache_report=False,
        return_input_ids=False,
        return_output_ids=False,
    )
    for module in (serving_chat, serving_completions):
        monkeypatch.setattr(module, "get_serving", lambda: values)
    return values


def chat_serving(manager):
    serving = object.__new__(serving_chat.OpenAIServingChat)
    vars(serving).update(
        tokenizer_manager=manager,
        reasoning_parser=None,
        tool_call_parser=None,
        chat_encoding_spec=None,
        _encoding_adapter=None,
    )
    return serving


def completion_serving(manager):
    serving = object.__new__(serving_completions.OpenAIServingCompletion)
    serving.tokenizer_manager = manager
    return serving


ROUTES = {
    "chat": (
        "/v1/chat/completions",
        chat_serving,
        ChatCompletionRequest(
            model="m",
            messages=[{"role": "user", "content": "x"}],
            stream=True,
            stream_options={"include_usage": True},
        ),
        serving_chat.OpenAIServingChat._generate_chat_stream,
    ),
    "completions": (
        "/v1/completions",
        completion_serving,
        CompletionRequest(
            model="m", prompt="x", stream=True, stream_options={"include_usage": True}
        ),
        serving_completions.OpenAIServingCompletion._generate_completion_stream,
    ),
}


async def events(route, manager, options, *, obj=None):
    """The events of a streamed answer, from SGLang's code with our hooks around it."""
    path, serving_for, request, make = ROUTES[route]
    serving = serving_for(manager)
    raw = Request(path, {} if options is None else {"multiverse": options})
    got = []

    async def original(serving, request, raw):
        generation = obj or GenerateReqInput(text="x", sampling_params={}, stream=True)
        got.extend([e async for e in label_stream(make, serving, generation, request, raw)])

    await handle_request(original, serving, request, raw)
    return got


def bodies(got):
    assert got[-1] == "data: [DONE]\n\n"
    assert all(event.endswith("\n\n") for event in got)
    return [json.loads(event[len("data: ") :]) for event in got[:-1]]


def pieces(got):
    """(index, text, label, finish reason) of every choice."""
    rows = []
    for body in bodies(got):
        for choice in body["choices"]:
            text = choice["text"] if "text" in choice else choice["delta"].get("content")
            label = choice.get("multiverse")
            rows.append((choice["index"], text or "", label, choice["finish_reason"]))
    return rows


FLOW = [
    output("a", deltas=[["", "a"]]),
    output("a", deltas=[["1", "b"], ["2.1", "é"]]),
    output("a"),
    output("abé", STOP, deltas=[["1", "c"]], summary=SUMMARY),
]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("incremental", [False, True])
async def test_live_branches(route, incremental, config):
    config.incremental_streaming_output = incremental
    got = await events(route, Manager(FLOW, incremental=incremental), LIVE)
    rows = pieces(got)
    if route == "chat":
        assert rows.pop(0) == (0, "", None, None), "the chunk with the role"
    assert rows == [
        (0, "a", {"path": ""}, None),
        (0, "b", {"path": "1"}, None),
        (0, "é", {"path": "2.1"}, None),
        (0, "c", {"path": "1"}, None),
        (0, "", SUMMARY, "stop"),
    ]
    usage = [body for body in bodies(got) if not body["choices"]]
    assert [body["usage"]["completion_tokens"] for body in usage] == [2]


@pytest.mark.parametrize("route", ROUTES)
async def test_live_branches_of_several_choices(route):
    flow = [
        output("", index=0, deltas=[["1", "a"]]),
        output("", index=1, deltas=[["2", "x"]]),
        output("", index=0, deltas=[["1", "b"]]),
        output("", STOP, index=1, summary=SUMMARY),
        output("", STOP, index=0, deltas=[["", "c"]], summary={**SUMMARY, "blocks": 3}),
    ]
    rows = [row for row in pieces(await events(route, Manager(flow), LIVE)) if row[2]]
    assert [row for row in rows if row[3] is None] == [
        (0, "a", {"path": "1"}, None),
        (1, "x", {"path": "2"}, None),
        (0, "b", {"path": "1"}, None),
        (0, "c", {"path": ""}, None),
    ]
    closing = {row[0]: row[2] for row in rows if row[3] == "stop"}
    assert closing == {0: {**SUMMARY, "blocks": 3}, 1: SUMMARY}


@pytest.mark.parametrize("route", ROUTES)
async def test_an_ordinary_stream_is_linear_and_ends_with_the_summary(route):
    flow = [output("a"), output("ab"), output("abc", STOP, summary=SUMMARY)]
    rows = pieces(await events(route, Manager(flow), None))
    assert "".join(row[1] for row in rows) == "abc"
    assert [row[2] for row in rows if row[3] is None] == [None] * (len(rows) - 1)
    assert rows[-1][2:] == (SUMMARY, "stop")


@pytest.mark.parametrize("route", ROUTES)
async def test_a_plain_model_streams_sglangs_bytes(route, monkeypatch):
    for module in (serving_chat, serving_completions):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: 1.0))
    _, serving_for, request, make = ROUTES[route]
    flow = [output("a"), output("ab", STOP)]
    manager = Manager(flow, dialect=None)
    plain = make(serving_for(manager), GenerateReqInput(text="x", stream=True), request, None)
    without = [event async for event in plain]
    with_hooks = await events(route, manager, None)
    assert with_hooks == without


@pytest.mark.parametrize("route", ROUTES)
async def test_logprobs_cannot_go_with_live_branches(route):
    obj = GenerateReqInput(text="x", sampling_params={}, stream=True, return_logprob=True)
    with pytest.raises(OptionError, match="logprobs"):
        await events(route, Manager(FLOW), LIVE, obj=obj)


async def generated(manager, request, **fields):
    obj = GenerateReqInput(text="x", sampling_params={}, **fields)
    return [out async for out in manager.generate_request(obj, request)]


async def test_the_native_route_keeps_the_linear_text_beside_the_deltas():
    manager = Manager(FLOW)
    got = await generated(manager, Request("/generate", {"multiverse": LIVE}), stream=True)
    assert got == FLOW
    assert manager.seen.sampling_params == {"custom_params": {"multiverse": LIVE}}


async def test_other_routes_cannot_show_live_branches():
    with pytest.raises(OptionError, match="/v1/completions"):
        await generated(Manager(FLOW), Request("/v1/messages", {"multiverse": LIVE}), stream=True)


async def test_the_python_engine_has_no_http_request():
    manager = Manager(FLOW)
    assert await generated(manager, None, stream=True) == FLOW
    assert manager.seen.sampling_params == {}


async def test_an_error_comes_before_anything_is_started():
    manager = Manager(FLOW)
    with pytest.raises(OptionError, match=r"multiverse\.max_depth"):
        await generated(manager, Request("/generate", {"multiverse": {"max_depth": 0}}))
    assert manager.seen is None


async def test_other_requests_of_the_manager_pass():
    manager = Manager([{"embedding": [1.0], "meta_info": {}}])
    request = Request("/encode", {"multiverse": {"nonsense": 1}})
    obj = SimpleNamespace(text="x")  # an embedding request has no sampling to set
    assert [out async for out in manager.generate_request(obj, request)] == manager.outputs


async def whole_answer(outputs, result):
    manager = Manager([outputs])
    serving = SimpleNamespace(tokenizer_manager=manager)
    raw = Request("/v1/chat/completions", {})

    async def original(serving, request, raw):
        obj = GenerateReqInput(text="x", sampling_params={})
        async for _ in manager.generate_request(obj, raw):
            pass
        return result

    return await handle_request(original, serving, None, raw)


def chat_response(n):
    from sglang.srt.entrypoints.openai import protocol

    choices = [
        protocol.ChatCompletionResponseChoice(
            index=i,
            message=protocol.ChatMessage(role="assistant", content="a"),
            finish_reason="stop",
        )
        for i in range(n)
    ]
    usage = protocol.UsageInfo(prompt_tokens=1, completion_tokens=1, total_tokens=2)
    return protocol.ChatCompletionResponse(id="r", model="m", choices=choices, usage=usage)


async def test_a_whole_answer_carries_one_summary_per_choice():
    outputs = [output("a", STOP, summary={**SUMMARY, "blocks": i}) for i in range(2)]
    for one in outputs:
        del one["index"]  # SGLang numbers the outputs of streams only
    response = chat_response(2)
    answer = json.loads((await whole_answer(outputs, response)).body)
    assert [choice.pop("multiverse")["blocks"] for choice in answer["choices"]] == [0, 1]
    assert answer == json.loads(response.model_dump_json(by_alias=True)), "the rest is SGLang's"


async def test_without_a_summary_the_answer_is_sglangs_object():
    response = chat_response(1)
    assert await whole_answer(output("a", STOP), response) is response


async def test_errors_and_streams_pass_as_they_are():
    error = object()
    assert await whole_answer(output("a", STOP, summary=SUMMARY), error) is error


def test_a_request_without_relay():
    assert relay_of(None) is None
    assert relay_of(Request("/generate", {})) is None
