"""What is counted as reasoning, and what is served of a prompt that is too long."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from asking import chat_ids, check_idle, user
from models import problems
from server import Server

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
