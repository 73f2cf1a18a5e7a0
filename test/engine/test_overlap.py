"""The overlap event loop with a real model: parity, and everything that looks a token back.

On pages of 16 tokens, so that forks and joins also copy KV while a step is in flight.

The CPU platform leaves overlap off, since a CPU has no second stream; here it is on,
as on GPUs. The schedules are in `test_schedule` and `test_faults`.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import oracle
from asking import chat_ids, check_idle
from models import problems
from server import Server
from sglang_multiverse.structure import Role, TagTable

from .test_penalties import compare

pytestmark = pytest.mark.server(
    *("--chunked-prefill-size", "48", "--page-size", "16"),
    pool=2400,
    SGLANG_MULTIVERSE_CPU_OVERLAP="1",
)

PARAMS: tuple[dict[str, Any], ...] = (
    {},
    {"frequency_penalty": 0.1, "presence_penalty": 0.2, "repetition_penalty": 1.05},
    {"min_new_tokens": 60},
)


def test_it_is_on(server: Server) -> None:
    info = server.http.get("/server_info").json()
    assert info["disable_overlap_schedule"] is False and info["page_size"] == 16


def test_answers_are_the_oracles(
    server: Server, tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    """Sixteen at a time, in chunks, on a pool that some must leave again, penalties beside none."""
    draw = random.Random(5)
    eos = oracle.eos_ids(tiny_model, tiny_tokenizer)
    jobs = []
    for seed in range(36):
        problem = problems.generate(900 + seed, "held-out", draw.choice(problems.KINDS))
        solution = tiny_tokenizer.encode(problem.solution, add_special_tokens=False)
        kept = int(len(solution) * draw.choice([0.0, 0.0, 0.3, 0.6, 0.9]))
        jobs.append((chat_ids(problem, tiny_tokenizer) + solution[:kept], PARAMS[seed % 3]))

    def ask(job: tuple[list[int], dict[str, Any]]) -> dict[str, Any]:
        params = {"max_new_tokens": 500, **job[1]}
        return server.generate(job[0], sampling_params=params, return_logprob=True)

    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(ask, jobs))
    branches = sum(
        compare(answer, ids, tiny_model, tiny_tags, eos, oracle.Sampling(**asked))
        for (ids, asked), answer in zip(jobs, answers, strict=True)
    )
    assert branches >= 40
    check_idle(server)


@pytest.mark.parametrize(
    "params",
    [
        {"stop": ["="]},
        {"stop_token_ids": " ="},
        {"custom_params": {"multiverse": {"max_path_tokens": 16}}},
    ],
    ids=["stop string", "stop token", "path budget"],
)
def test_what_stands_in_a_sampled_tokens_place_is_what_the_next_step_reads(
    server: Server,
    params: dict[str, Any],
    tiny_model: Any,
    tiny_tokenizer: Any,
    tiny_tags: TagTable,
) -> None:
    """The forced `</Path>`: with another token's KV, all that follows would differ."""
    eos = oracle.eos_ids(tiny_model, tiny_tokenizer)
    if "stop_token_ids" in params:
        ids = tiny_tokenizer.encode(params["stop_token_ids"], add_special_tokens=False)
        params = {"stop_token_ids": ids}
    replaced = 0
    for seed in range(6):
        ids = chat_ids(problems.generate(seed, "held-out", "flat"), tiny_tokenizer)
        asked = {"max_new_tokens": 300, **params}
        answer = server.generate(ids, sampling_params=asked, return_logprob=True)
        compare(answer, ids, tiny_model, tiny_tags, eos, oracle.Sampling())
        close = tiny_tags.id_of[Role.BRANCH_CLOSE]
        rows = answer["meta_info"]["output_token_logprobs"]
        replaced += sum(row[0] is None and row[1] == close for row in rows)
    assert replaced >= 6
