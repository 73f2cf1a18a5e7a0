"""This package's own server as the endpoint: every stage's schema through SGLang's grammar.

The tests' model has never seen such a task; what counts is that a request is taken, forks nothing,
and is answered in the form that was asked for, as far as the answer goes.
"""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from sglang_multiverse.curator.__main__ import main
from sglang_multiverse.curator.config import RunConfig, stage_settings
from sglang_multiverse.curator.dialogue import read_answer
from sglang_multiverse.curator.endpoint import Endpoint
from sglang_multiverse.curator.errors import RejectedError
from sglang_multiverse.curator.request import Request
from sglang_multiverse.curator.schema import json_schema
from sglang_multiverse.curator.stages import STAGES

pytestmark = pytest.mark.server


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
async def test_every_stage_is_answered_in_its_form(server, stage):
    config = RunConfig(base_url=f"{server.url}/v1", max_answer_tokens=200, response_format="auto")
    endpoint = Endpoint(config, "none")
    try:
        model = await endpoint.first_model()
        settings = dataclasses.replace(stage_settings(config)[stage.name], model=model)
        said = [{"role": "user", "content": "Work out 3+4 and 5+6."}]
        reply = await endpoint.ask(Request(stage.name, settings, said, json_schema(stage.schema)))
    finally:
        await endpoint.close()
    assert not re.search(r"<(Parallel|Goal|Path)>", reply.text)
    first = next(iter(stage.schema.model_fields))
    # The grammar allows white space without end, and this model takes it up on that.
    assert re.match(rf'\{{\s*("{first}"\s*:\s*\[|$)', reply.text), reply.text
    assert reply.prompt_tokens > 0 and 0 < reply.completion_tokens <= 200
    if reply.finish == "stop":
        assert isinstance(read_answer(reply.text, stage.schema), stage.schema)
    else:
        assert reply.finish == "length"
        with pytest.raises(RejectedError):
            read_answer(reply.text, stage.schema)


def test_a_run_ends_in_reported_failures(server, tmp_path, capsys):
    """The whole command. The prompts are longer than what this model can read, which it is told."""
    source = tmp_path / "source.jsonl"
    source.write_text(json.dumps({"question": "What is 3 + 4?", "thinking": "It is 7. So 7."}))
    run = ["run", str(source), "--out", str(tmp_path / "out"), "--base-url", f"{server.url}/v1"]
    assert main([*run, "--no-plots", "--max-answer-tokens", "64"]) == 1
    (failure,) = (tmp_path / "out" / "failures.jsonl").read_text().splitlines()
    assert json.loads(failure)["stage"] == "outline"
    assert "longer than the model's context" in json.loads(failure)["reason"]
    assert "failed" in capsys.readouterr().out
