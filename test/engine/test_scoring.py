"""Scoring given text with blocks: what decoding gave, and what the oracle says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import oracle
from asking import chat_ids, check_idle
from models import problems
from server import Server
from sglang_multiverse.structure import Automaton, Phase, Role, TagTable

pytestmark = pytest.mark.server()

TOLERANCE = 1e-3
KINDS = ("flat", "nested", "rounds")


def score(server: Server, ids: list[int], **kwargs: Any) -> list[list[Any]]:
    asked = {"logprob_start_len": 0, "return_logprob": True, **kwargs}
    params = {"max_new_tokens": 0, **asked.pop("sampling_params", {})}
    answer = server.generate(ids, sampling_params=params, **asked)
    rows: list[list[Any]] = answer["meta_info"]["input_token_logprobs"]
    start = asked["logprob_start_len"]
    assert [row[1] for row in rows] == ids[start:]
    return rows


def unseen(ids: list[int], tags: TagTable) -> set[int]:
    """Places whose token was never sampled from the one before it."""
    found, reading, role = {0}, Automaton(tags), None
    for i, token in enumerate(ids):
        if reading.phase is Phase.HEAD and reading.frames[-1].branch_start == i:
            found.add(i)
        if reading.phase is Phase.TAIL and role is Role.BRANCH_CLOSE:
            found.add(i)
        role = reading.push(token)
    return found


def check(rows: list[list[Any]], ids: list[int], model: Any, tags: TagTable) -> None:
    scores = oracle.score(model, ids, tags, 1, None, frozenset())
    start = len(ids) - len(rows)
    none = {i for i in range(start, len(ids)) if rows[i - start][0] is None}
    assert none == {start} | {i for i in unseen(ids, tags) if start <= i < len(ids)}
    for i in range(start, len(ids)):
        if i not in none:
            expected = float(scores.logprobs[i - 1])
            assert rows[i - start][0] == pytest.approx(expected, abs=TOLERANCE), i


@pytest.mark.parametrize("kind", KINDS)
def test_a_scored_answer_has_the_log_probabilities_it_was_decoded_with(
    server: Server, kind: Any, tiny_tokenizer: Any
) -> None:
    prompt = chat_ids(problems.generate(3, "held-out", kind), tiny_tokenizer)
    answer = server.generate(prompt, return_logprob=True, multiverse={"guard": False})
    assert answer["meta_info"]["multiverse"]["branches"] > 1
    decoded = answer["meta_info"]["output_token_logprobs"]
    scored = score(server, [*prompt, *answer["output_ids"]])[len(prompt) :]
    compared = 0
    for one, other in zip(decoded, scored, strict=True):
        if one[0] is not None:
            assert one[0] == pytest.approx(other[0], abs=TOLERANCE)
            compared += 1
    assert compared > 60


def test_any_text_cut_anywhere_is_scored_as_the_oracle_does(
    server: Server, tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    """Side by side, from any place on, with and without an answer behind it."""
    jobs = []
    for seed in range(24):
        problem = problems.generate(40 + seed, "held-out", KINDS[seed % 3])
        solution = tiny_tokenizer.encode(problem.solution, add_special_tokens=False)
        ids = chat_ids(problem, tiny_tokenizer) + solution[: len(solution) * (seed + 1) // 24]
        start = (0, len(ids) // 2, len(ids) - 1)[seed // 3 % 3]
        jobs.append((ids, start, {"max_new_tokens": (0, 40)[seed % 2]}))

    def ask(job: tuple[list[int], int, dict[str, Any]]) -> list[list[Any]]:
        ids, start, params = job
        return score(server, ids, logprob_start_len=start, sampling_params=params)

    with ThreadPoolExecutor(8) as clients:
        for (ids, _, _), rows in zip(jobs, clients.map(ask, jobs), strict=True):
            check(rows, ids, tiny_model, tiny_tags)
    check_idle(server)


@pytest.mark.server("--chunked-prefill-size", "40", pool=1600, SGLANG_MULTIVERSE_CPU_OVERLAP="1")
def test_in_chunks_and_with_overlap(
    own_server: Server, tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    texts = []
    for seed in range(12):
        problem = problems.generate(70 + seed, "held-out", KINDS[seed % 3])
        solution = tiny_tokenizer.encode(problem.solution, add_special_tokens=False)
        texts.append(chat_ids(problem, tiny_tokenizer) + solution)
    with ThreadPoolExecutor(8) as clients:
        for ids, rows in zip(
            texts, clients.map(lambda t: score(own_server, t), texts), strict=True
        ):
            check(rows, ids, tiny_model, tiny_tags)


def test_top_log_probabilities_and_named_ids_come_along(
    server: Server, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    problem = problems.generate(3, "held-out", "nested")
    solution = tiny_tokenizer.encode(problem.solution, add_special_tokens=False)
    ids = chat_ids(problem, tiny_tokenizer) + solution
    named = sorted(tiny_tags.role_of)[:3]
    answer = server.generate(
        ids,
        sampling_params={"max_new_tokens": 0},
        return_logprob=True,
        logprob_start_len=0,
        top_logprobs_num=2,
        token_ids_logprob=named,
    )
    meta = answer["meta_info"]
    chosen = meta["input_token_logprobs"]
    for i, (row, top, by_id) in enumerate(
        zip(chosen, meta["input_top_logprobs"], meta["input_token_ids_logprobs"], strict=True)
    ):
        if row[0] is None:
            assert not top and not by_id
            continue
        assert len(top) == 2 and [entry[1] for entry in by_id] == named
        assert top[0][0] >= row[0] - TOLERANCE
        if top[0][1] == ids[i]:
            assert top[0][0] == pytest.approx(row[0], abs=TOLERANCE)


def test_completions_echo_it(server: Server, tiny_tokenizer: Any, tiny_model: Any) -> None:
    problem = problems.generate(3, "held-out", "flat")
    text = f"{problem.prompt}\n{problem.solution}"
    ids = tiny_tokenizer.encode(text)
    answer = server.http.post(
        "/v1/completions",
        json={"prompt": ids, "max_tokens": 1, "echo": True, "logprobs": 1},
    )
    assert answer.status_code == 200, answer.text
    logprobs = answer.json()["choices"][0]["logprobs"]
    assert len(logprobs["token_logprobs"]) == len(ids) + 1
    rows = score(server, ids)
    for one, row in zip(logprobs["token_logprobs"][:-1], rows, strict=True):
        assert (one is None) == (row[0] is None)
        assert one is None or one == pytest.approx(row[0], abs=TOLERANCE)
    assert torch.tensor([r[0] for r in rows if r[0] is not None]).le(0).all()
