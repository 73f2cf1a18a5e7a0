"""What is counted as reasoning, and what is served of a prompt that is too long."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asking import chat_ids, check_idle, user
from models import problems
from server import Server
from sglang_multiverse.structure import Role, TagTable

pytestmark = pytest.mark.server

GREEDY: dict[str, Any] = {"model": "m", "temperature": 0, "max_tokens": 900}


@pytest.fixture(scope="module")
def server(tiny_path: Path) -> Iterator[Server]:
    flags = ("--reasoning-parser", "qwen3", "--allow-auto-truncate")
    with Server(*flags, model=tiny_path, pool=600) as running:
        yield running
        check_idle(running)


@pytest.mark.parametrize("kind", ["flat", "nested"])
def test_branches_count_as_reasoning(server: Server, kind: str) -> None:
    """The tiny model never writes `</think>`, so all it writes is reasoning."""
    asked = user(problems.generate(3, "held-out", kind).prompt)
    answer = server.http.post("/v1/chat/completions", json={**GREEDY, "messages": asked}).json()
    usage = answer["usage"]
    assert answer["choices"][0]["multiverse"]["branches"] >= 2
    assert usage["reasoning_tokens"] == usage["completion_tokens"]


def test_a_prompt_that_is_too_long_is_cut_before_it_is_read(
    server: Server, tiny_tokenizer: Any
) -> None:
    """Wherever the cut falls: before the block, in its plan, in a branch, behind it."""
    problem = problems.generate(3, "held-out", "flat")
    block = tiny_tokenizer.encode(problem.solution, add_special_tokens=False)
    ids = [*chat_ids(problem, tiny_tokenizer), *block]
    params = {"temperature": 0, "max_new_tokens": 50}
    for kept in range(60, len(ids), 9):
        long = [*(ids[:1] * (600 - kept)), *ids]
        body = {"input_ids": long, "sampling_params": params}
        answer = server.http.post("/generate", json=body)
        assert answer.status_code == 200, answer.text
        told = answer.json()["meta_info"]
        assert told["finish_reason"]["type"] == "length"
        assert told["prompt_tokens"] < 600 < len(long)


@pytest.mark.server("--reasoning-parser", "multiverse", pool=1024)
@pytest.mark.parametrize("stream", [False, True])
def test_our_parser_splits_an_answer_and_counts_what_is_reasoning(
    own_server: Server, stream: bool, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    asked = user(problems.generate(3, "held-out", "nested").prompt)
    body = {**GREEDY, "messages": asked, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
        usage: dict[str, Any] = {}
        texts = {"reasoning_content": "", "content": ""}
        with own_server.http.stream("POST", "/v1/chat/completions", json=body) as lines:
            for line in lines.iter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                usage = chunk.get("usage") or usage
                for choice in chunk["choices"]:
                    for name in texts:
                        texts[name] += choice["delta"].get(name) or ""
    else:
        answer = own_server.http.post("/v1/chat/completions", json=body).json()
        usage, texts = answer["usage"], answer["choices"][0]["message"]
    reasoning, content = texts["reasoning_content"], texts["content"]
    assert reasoning.startswith("<Parallel>") and reasoning.rstrip().endswith("</Parallel>")
    assert "<" not in content and "Answer" in content
    inside = tiny_tokenizer.encode(reasoning, add_special_tokens=False)
    last = len(inside) - 1 - inside[::-1].index(tiny_tags.id_of[Role.BLOCK_CLOSE])
    assert usage["reasoning_tokens"] == last + 1 < usage["completion_tokens"]
