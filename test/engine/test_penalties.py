"""Penalties, `min_new_tokens` and logit bias on forked text, against the oracle, exact values.

What counts is what a sequence sees: its prefix without siblings in a branch,
everything after a join, forced tokens too, nothing of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import oracle
from asking import chat_ids, check_idle
from models import problems
from server import Server
from sglang_multiverse.structure import Automaton, Limits, Phase, Role, TagTable, parse

pytestmark = pytest.mark.server

TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running
        check_idle(running)


def compare(
    answer: dict[str, Any],
    ids: list[int],
    model: Any,
    tags: TagTable,
    eos: frozenset[int],
    sampling: oracle.Sampling,
) -> int:
    """Hold every chosen token and its log probability against the oracle; returns the branches.

    Side by side branches that a length cut have no linear reading, and are not compared.
    """
    out = answer["output_ids"]
    reading = Automaton(tags)
    reading.feed([*ids, *out])
    if any(frame.phase in (Phase.HEAD, Phase.BRANCH) for frame in reading.frames):
        assert answer["meta_info"]["finish_reason"]["type"] == "length"
        return 0
    rows = answer["meta_info"]["output_token_logprobs"]
    assert [row[1] for row in rows] == out
    forced = [row[0] is None for row in rows]
    scores = oracle.score(model, [*ids, *out], tags, len(ids), Limits(), eos, forced, sampling)
    for k, token in enumerate(out):
        if forced[k]:
            continue
        assert rows[k][0] == pytest.approx(float(scores.guarded_logprobs[k]), abs=TOLERANCE), k
        # At a tie of the oracle's two best either is right.
        assert token == int(scores.choice[k]) or float(scores.gap[k]) < TOLERANCE, k
    return int(answer["meta_info"]["multiverse"]["branches"])


CASES = {
    "frequency": {"frequency_penalty": 0.2},
    "presence": {"presence_penalty": 0.7},
    "repetition": {"repetition_penalty": 1.1},
    "all": {"frequency_penalty": 0.1, "presence_penalty": 0.2, "repetition_penalty": 1.05},
    "negative": {"frequency_penalty": -0.1},
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_sequence_sees_counts(
    server: Server,
    name: str,
    tiny_model: Any,
    tiny_tokenizer: Any,
    tiny_tags: TagTable,
) -> None:
    """Flat, nested and several blocks; all at once, so that rows of other kinds are beside them."""
    sampling = oracle.Sampling(**CASES[name])
    eos = oracle.eos_ids(tiny_model, tiny_tokenizer)
    drawn = [
        problems.generate(seed, "held-out", kind)
        for kind in ("flat", "nested", "rounds")
        for seed in (3, 4)
    ]
    prompts = [chat_ids(problem, tiny_tokenizer) for problem in drawn]

    def ask(job: tuple[list[int], bool]) -> dict[str, Any]:
        ids, penalised = job
        params = {"max_new_tokens": 400, **(CASES[name] if penalised else {})}
        return server.generate(ids, sampling_params=params, return_logprob=True)

    with ThreadPoolExecutor(12) as clients:
        jobs = [(ids, penalised) for ids in prompts for penalised in (True, False)]
        answers = list(clients.map(ask, jobs))
    branches = 0
    for (ids, penalised), answer in zip(jobs, answers, strict=True):
        asked = sampling if penalised else oracle.Sampling()
        found = compare(answer, ids, tiny_model, tiny_tags, eos, asked)
        branches += found if penalised else 0
    assert branches >= 12


def test_min_new_tokens_counts_across_fork_and_join(
    server: Server, tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    """145 tokens fulfil a minimum of 60, wherever they were written."""
    ids = chat_ids(problems.generate(3, "held-out", "flat"), tiny_tokenizer)
    eos = oracle.eos_ids(tiny_model, tiny_tokenizer)
    plain = server.generate(ids, return_logprob=True)
    length = len(plain["output_ids"])
    for minimum in (60, length - 1, length, length + 10):
        answer = server.generate(
            ids,
            sampling_params={"min_new_tokens": minimum, "max_new_tokens": length + 60},
            return_logprob=True,
        )
        sampling = oracle.Sampling(min_new_tokens=minimum)
        branches = compare(answer, ids, tiny_model, tiny_tags, eos, sampling)
        if minimum < length:
            assert branches >= 2
            assert answer["output_ids"] == plain["output_ids"]
        else:
            assert answer["output_ids"][: length - 1] == plain["output_ids"][:-1]
            assert len(answer["output_ids"]) > minimum


def test_the_prompts_own_blocks_do_not_count(
    server: Server, tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    """A prompt cut in the plan, in a header, in a branch, behind the join."""
    problem = problems.generate(3, "held-out", "nested")
    solution = tiny_tokenizer.encode(problem.solution, add_special_tokens=False)
    ids = chat_ids(problem, tiny_tokenizer)
    eos = oracle.eos_ids(tiny_model, tiny_tokenizer)
    block = parse([*ids, *solution], tiny_tags).blocks[0]
    first, last = block.branches[0].span, block.branches[-1].span
    cuts = (block.goal_end - 3, first.lo + 1, first.hi - 5, last.lo + 12, last.hi + 2)
    params = {"frequency_penalty": 0.2, "min_new_tokens": 20}
    for cut in cuts:
        prompt = [*ids, *solution][:cut]
        answer = server.generate(
            prompt, sampling_params={**params, "max_new_tokens": 400}, return_logprob=True
        )
        compare(answer, prompt, tiny_model, tiny_tags, eos, oracle.Sampling(**params))


def test_logit_bias_holds_in_every_branch(
    server: Server, tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    ids = chat_ids(problems.generate(3, "held-out", "nested"), tiny_tokenizer)
    eos = oracle.eos_ids(tiny_model, tiny_tokenizer)
    plain = server.generate(ids, return_logprob=True)
    # Ordinary tokens of the answer, the ends and a tag; of different size and sign.
    ordinary = sorted(set(plain["output_ids"]) - set(tiny_tags.role_of) - eos)[:6]
    bias = {token: 1.5 - k / 2 for k, token in enumerate(ordinary)}
    bias |= dict.fromkeys(eos, 2.0) | {tiny_tags.id_of[Role.BRANCH_CLOSE]: 1.0}
    answer = server.generate(
        ids,
        sampling_params={
            "logit_bias": {str(token): value for token, value in bias.items()},
            "max_new_tokens": 400,
        },
        return_logprob=True,
    )
    sampling = oracle.Sampling(logit_bias=bias)
    assert compare(answer, ids, tiny_model, tiny_tags, eos, sampling) >= 2


def test_stop_strings_end_what_they_stand_in(
    server: Server, tiny_model: Any, tiny_tokenizer: Any
) -> None:
    """Token for token: in every branch, in one, in a nested one, behind the join, in a plan."""
    for seed, kind in ((3, "flat"), (3, "nested")):
        ids = chat_ids(problems.generate(seed, "held-out", kind), tiny_tokenizer)
        for stop in (["Result"], ["- 6", "4 "], ["</Conclusion>"]):
            expected = oracle.generate(tiny_model, tiny_tokenizer, ids, 400, stop=stop)
            answer = server.generate(
                ids, sampling_params={"stop": stop, "max_new_tokens": 400}, return_logprob=True
            )
            got = [row[1] for row in answer["meta_info"]["output_token_logprobs"]]
            # A stop amid a branch's own conclusion leaves what its siblings had written by then.
            assert got[: len(expected.ids)] == expected.ids
            inside = kind == "nested" and stop == ["</Conclusion>"]
            assert (len(got) > len(expected.ids)) == inside
            whole = tiny_tokenizer.decode(expected.ids)
            if expected.finish == "stop" and whole.endswith(stop[0]):
                assert answer["text"] == whole.removesuffix(stop[0])
            assert answer["meta_info"]["finish_reason"]["type"] == expected.finish


def test_counts_survive_a_retraction(
    tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    """Rows are retracted every few steps; SGLang itself would count anew after each retraction."""
    params = {"frequency_penalty": 0.2, "presence_penalty": 0.1, "min_new_tokens": 60}
    eos = oracle.eos_ids(tiny_model, tiny_tokenizer)
    kinds = ("one", "flat", "nested", "flat")
    prompts = [
        chat_ids(problems.generate(seed, "held-out", kinds[seed % 4]), tiny_tokenizer)
        for seed in range(8)
    ]
    often = {"SGLANG_TEST_RETRACT": "1", "SGLANG_TEST_RETRACT_INTERVAL": "7"}
    with Server(**often) as small, ThreadPoolExecutor(8) as clients:

        def ask(ids: list[int]) -> dict[str, Any]:
            return small.generate(
                ids, sampling_params={**params, "max_new_tokens": 200}, return_logprob=True
            )

        answers = list(clients.map(ask, prompts))
        assert "Testing retraction" in small.log
        small.flush()  # waits until nothing runs or waits
        assert small.alive and "leak" not in small.log, small.tail
    for ids, answer in zip(prompts, answers, strict=True):
        compare(answer, ids, tiny_model, tiny_tags, eos, oracle.Sampling(**params))
