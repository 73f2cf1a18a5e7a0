"""The engine against the oracle: same tokens, same logprobs, alone and in company.

Matrix products round differently at different batch sizes, so a differing token
is excused where the oracle's two best logits are closer than the tolerance; such
ties are counted, and must stay rare.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

import oracle
from models import problems
from server import Server
from sglang_multiverse.structure import Limits, Role, TagTable, parse

pytestmark = pytest.mark.server

TOLERANCE = 1e-3


class Case(NamedTuple):
    ids: list[int]
    kind: str


@pytest.fixture(scope="module")
def cases(tiny_tokenizer: Any) -> list[Case]:
    """62 held-out prompts: twelve of each kind, and two flat problems of every width 2–8."""
    drawn = [
        problems.generate(seed, "held-out", kind)
        for kind in problems.KINDS
        for seed in range(100, 112)
    ]
    flat = [problems.generate(seed, "held-out", "flat") for seed in range(200, 400)]
    for width in range(2, 9):
        # Two, because the model may miscount one.
        drawn += [problem for problem in flat if len(problem.parts) == width][:2]
    return [Case(prompt_ids(problem, tiny_tokenizer), problem.kind) for problem in drawn]


def prompt_ids(problem: problems.Problem, tokenizer: Any) -> list[int]:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": problem.prompt}], tokenize=False, add_generation_prompt=True
    )
    return list(tokenizer.encode(text, add_special_tokens=False))


def ask(server: Server, ids: list[int], **kwargs: Any) -> dict[str, Any]:
    return server.generate(ids, return_logprob=True, **kwargs)


def compare(
    answer: dict[str, Any], ids: list[int], model: Any, tags: TagTable, eos: set[int]
) -> int:
    """Hold one greedy answer against the oracle; returns the number of ties."""
    out = answer["output_ids"]
    rows = answer["meta_info"]["output_token_logprobs"]
    assert [row[1] for row in rows] == out
    forced = [row[0] is None for row in rows]
    scores = oracle.score(model, [*ids, *out], tags, len(ids), Limits(), eos, forced)
    ties = 0
    for k, token in enumerate(out):
        if forced[k]:
            continue
        assert abs(rows[k][0] - float(scores.guarded_logprobs[k])) < TOLERANCE, (k, rows[k])
        if token != int(scores.choice[k]):
            assert float(scores.gap[k]) < TOLERANCE, (k, token, int(scores.choice[k]))
            ties += 1
    return ties


def eos_ids(model: Any, tokenizer: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    return {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}


def test_alone(
    server: Server, cases: list[Case], tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    eos = eos_ids(tiny_model, tiny_tokenizer)
    ties, branches = 0, set()
    depths: dict[str, set[int]] = {kind: set() for kind in problems.KINDS}
    for case in cases:
        answer = ask(server, case.ids)
        ties += compare(answer, case.ids, tiny_model, tiny_tags, eos)
        trace = parse([*case.ids, *answer["output_ids"]], tiny_tags)
        assert trace.well_formed, trace.defects
        branches.update(len(block.branches) for block in trace.blocks)
        depths[case.kind].add(answer["meta_info"]["multiverse"]["depth"])
    assert ties <= 2
    # The model forks as the problem asks: not at all, flat, and nested.
    assert depths["one"] == {0}
    assert 1 in depths["flat"] and 1 in depths["rounds"] and 2 in depths["nested"]
    assert branches >= set(range(2, 9)), f"branch counts seen: {sorted(branches)}"


def test_with_sixteen_others(
    server: Server, cases: list[Case], tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    """Seventeen clients at a time; every answer is held against the oracle."""
    eos = eos_ids(tiny_model, tiny_tokenizer)
    server.flush()
    with ThreadPoolExecutor(17) as clients:
        answers = list(clients.map(lambda case: ask(server, case.ids), cases))
    ties = sum(
        compare(answer, case.ids, tiny_model, tiny_tags, eos)
        for case, answer in zip(cases, answers, strict=True)
    )
    assert ties <= 4
    busiest = max(a["meta_info"]["multiverse"]["max_concurrent_branches"] for a in answers)
    assert busiest >= 4


def test_a_prompt_cut_anywhere_goes_on_as_decoding_would(
    server: Server, tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    """Structured prompts: KV computed from known text equals KV computed by decoding it."""
    eos = eos_ids(tiny_model, tiny_tokenizer)
    rng = random.Random(7)
    cut_in_branch = 0
    for seed in range(40):
        problem = problems.generate(
            500 + seed, "held-out", rng.choice(["flat", "nested", "rounds"])
        )
        solution = tiny_tokenizer.encode(problem.solution, add_special_tokens=False)
        ids = prompt_ids(problem, tiny_tokenizer) + solution[: rng.randrange(len(solution))]
        server.flush()
        answer = ask(server, ids, sampling_params={"max_new_tokens": 900})
        if answer["meta_info"]["finish_reason"]["type"] == "length":
            continue
        compare(answer, ids, tiny_model, tiny_tags, eos)
        cut_in_branch += bool(parse(ids, tiny_tags).open_blocks)
    assert cut_in_branch >= 10


@pytest.mark.server("--chunked-prefill-size", "40")
def test_a_prompt_computed_in_chunks_goes_on_as_decoding_would(
    own_server: Server, tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    """A step computes 40 tokens at most, so that branches and plans fall apart into chunks."""
    eos = eos_ids(tiny_model, tiny_tokenizer)
    rng = random.Random(11)
    chunked = 0

    def ask_cut(seed: int) -> tuple[list[int], dict[str, Any]]:
        kind = ("flat", "nested", "rounds")[seed % 3]
        problem = problems.generate(700 + seed, "held-out", kind)
        solution = tiny_tokenizer.encode(problem.solution, add_special_tokens=False)
        # From nothing to nearly all of the answer is known.
        kept = int(len(solution) * rng.choice([0.0, 0.3, 0.6, 0.9]))
        ids = prompt_ids(problem, tiny_tokenizer) + solution[:kept]
        return ids, ask(own_server, ids, sampling_params={"max_new_tokens": 900})

    with ThreadPoolExecutor(4) as clients:
        for ids, answer in clients.map(ask_cut, range(24)):
            if answer["meta_info"]["finish_reason"]["type"] == "length":
                continue
            compare(answer, ids, tiny_model, tiny_tags, eos)
            chunked += len(ids) > 160
    assert chunked >= 10


def test_what_the_cache_holds_of_a_block_is_used_only_where_it_is_seen(
    server: Server, cases: list[Case], tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    """The whole answer is in the radix tree, and prompts that end in the middle of it match it."""
    eos = eos_ids(tiny_model, tiny_tokenizer)
    for case in [case for case in cases if case.kind in ("nested", "rounds")][::6]:
        server.flush()
        whole = [*case.ids, *ask(server, case.ids)["output_ids"]]
        block = parse(whole, tiny_tags).blocks[0]
        inside = block.branches[-1].span
        for cut in (block.goal_end, (inside.lo + inside.hi) // 2, inside.hi, len(whole) - 4):
            answer = ask(server, whole[:cut])
            assert answer["meta_info"]["cached_tokens"] > 0
            compare(answer, whole[:cut], tiny_model, tiny_tags, eos)


def test_nothing_is_prefilled_but_prompts_and_headers(
    server: Server, cases: list[Case], tiny_tags: TagTable
) -> None:
    """The join moves KV; it neither copies nor computes it again."""
    for case in cases[::4]:
        server.flush()
        answer = ask(server, case.ids)
        forced = sum(row[0] is None for row in answer["meta_info"]["output_token_logprobs"])
        summary = answer["meta_info"]["multiverse"]
        closing = tiny_tags.id_of[Role.BRANCH_CLOSE]
        replaced = sum(
            row[0] is None and row[1] == closing
            for row in answer["meta_info"]["output_token_logprobs"]
        )
        assert summary["forced_tokens"] == forced
        assert summary["prefilled_tokens"] == len(case.ids) + forced - replaced
