"""Requests as SGLang's endpoint takes them; pace; what an answer may look like."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from sglang_multiverse.curator.config import RunConfig, stage_settings
from sglang_multiverse.curator.dialogue import read_answer
from sglang_multiverse.curator.endpoint import Pace, _body
from sglang_multiverse.curator.errors import RejectedError
from sglang_multiverse.curator.prompt import messages
from sglang_multiverse.curator.request import Request
from sglang_multiverse.curator.schema import Dependencies, Outline, json_schema
from sglang_multiverse.curator.stages import STAGES


def request(stage, **changes):
    settings = stage_settings(RunConfig(model="m"))[stage.name]
    said = messages(stage.name, "q", ["a"], [])
    return Request(stage.name, settings, said, json_schema(stage.schema), **changes)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_schema_is_strict_and_known_to_the_grammar(stage):
    import xgrammar

    schema = json_schema(stage.schema)
    grammar = xgrammar.Grammar.from_json_schema(json.dumps(schema))
    assert "root" in str(grammar)
    for part in (schema, *schema.get("$defs", {}).values()):
        assert part["additionalProperties"] is False
        assert part["required"] == list(part["properties"])


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_prompt_shows_the_form_of_its_schema(stage):
    """The example at the end of every prompt is an answer of the schema."""
    text = request(stage).messages[1]["content"]
    example = text[text.index('{"') :]
    assert isinstance(read_answer(example, stage.schema), stage.schema)


def test_the_body_is_what_sglang_takes():
    from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest

    body = _body(request(STAGES[0]), True, "max_tokens")
    read = ChatCompletionRequest(**body)
    assert read.response_format.type == "json_schema"
    assert read.response_format.json_schema.schema_ == json_schema(Outline)
    assert read.max_tokens == 8192
    assert "response_format" not in _body(request(STAGES[0]), False, "max_tokens")


def test_the_address_depends_on_what_is_asked_and_not_on_prices():
    import dataclasses

    one = request(STAGES[0])
    assert one.key == request(STAGES[0]).key
    assert one.key != request(STAGES[1]).key and one.key != request(STAGES[0], round=1).key
    for name, value in (("model", "n"), ("temperature", 0.5), ("top_p", 0.5), ("extra_body", "{}")):
        changed = dataclasses.replace(one.settings, **{name: value})
        assert dataclasses.replace(one, settings=changed).key != one.key
    free = dataclasses.replace(one.settings, price_in=3.0)
    assert dataclasses.replace(one, settings=free).key == one.key


async def test_pace_spreads_and_corrects():
    pace = Pace(6000)  # a hundredth of a second each
    began = time.monotonic()
    await asyncio.gather(*(pace.take(1) for _ in range(11)))
    assert 0.09 < time.monotonic() - began < 10
    pace.correct(20)
    began = time.monotonic()
    await pace.take(1)
    assert time.monotonic() - began > 0.15
    free = Pace(0)
    began = time.monotonic()
    await asyncio.gather(*(free.take(10**9) for _ in range(100)))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no JSON object"),
        ("[]", "no JSON object"),
        ('{"edges": [', "the answer is no JSON"),
        ("{}", "edges: Field required"),
        ('{"edges": [{"step": "S1"}]}', "edges.0.uses: Field required"),
        ('{"edges": [], "more": 1}', "more: Extra inputs are not permitted"),
        ("{" * 10_000, "the answer is no JSON"),
    ],
)
def test_what_is_no_answer(text, said):
    with pytest.raises(RejectedError, match=said):
        read_answer(text, Dependencies)
