"""The reference is itself checked: against plain causal attention and scripted models."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import oracle
from models import problems
from sglang_multiverse.structure import Limits, TagTable, parse, walk
from sglang_multiverse.training.encode import forced_mask


def prompt_of(problem: problems.Problem, tokenizer: Any) -> list[int]:
    messages = [{"role": "user", "content": problem.prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def raw_logprobs(model: Any, ids: Sequence[int], tags: TagTable) -> torch.Tensor:
    """Of every token behind the first, float32 `[n - 1]`."""
    return oracle.score(model, ids, tags, 1, None, ()).logprobs


@pytest.mark.parametrize("kind", ["flat", "nested", "rounds"])
def test_a_branch_is_what_it_would_be_without_its_siblings(
    kind: problems.Kind, tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    problem = problems.generate(4, "held-out", kind)
    ids = tiny_tokenizer.encode(problem.solution, add_special_tokens=False)
    scored = raw_logprobs(tiny_model, ids, tiny_tags)
    block = parse(ids, tiny_tags).blocks[0]
    for branch in block.branches:
        if branch.blocks:  # no plain text up to here would be causal
            continue
        lo, hi = branch.span
        plain = ids[: block.goal_end] + ids[lo:hi]
        with torch.no_grad():
            logits = tiny_model(torch.tensor([plain])).logits[0]
        targets = torch.tensor(plain[1:])[:, None]
        expected = logits[:-1].log_softmax(-1).gather(1, targets)[block.goal_end :, 0]
        torch.testing.assert_close(scored[lo : hi - 1], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("other", ["9 cups. 9 + 9 = 18.", "1.", "\n" * 40])
def test_a_branch_does_not_feel_what_a_sibling_says_but_the_conclusion_does(
    other: str, tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    text = problems.generate(5, "held-out", "flat").solution
    lo = text.index("<Path>\n1:") + len("<Path>\n1:")
    changed = text[:lo] + other + text[text.index("</Path>") :]
    scores, branches, tails = [], [], []
    for version in (text, changed):
        ids = tiny_tokenizer.encode(version, add_special_tokens=False)
        block = parse(ids, tiny_tags).blocks[0]
        scored = raw_logprobs(tiny_model, ids, tiny_tags)
        last = block.branches[-1].span
        scores.append(scored)
        branches.append(scored[block.branches[1].span.lo : last.hi - 1])
        tails.append(scored[last.hi :])
    # The first token of each later branch is predicted from its sibling's `</Path>`.
    starts = [i - block.branches[1].span.lo - 1 for i in (b.span.lo for b in block.branches[2:])]
    keep = torch.ones(len(branches[0]), dtype=torch.bool)
    keep[starts] = False
    torch.testing.assert_close(branches[0][keep], branches[1][keep], atol=1e-4, rtol=1e-4)
    assert (tails[0] - tails[1]).abs().max() > 1e-2


@pytest.mark.parametrize("kind", problems.KINDS)
def test_token_by_token_equals_one_forward_pass(
    kind: problems.Kind, tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    problem = problems.generate(6, "held-out", kind)
    prompt = prompt_of(problem, tiny_tokenizer)
    got = oracle.generate(tiny_model, tiny_tokenizer, prompt, 1200)
    assert got.finish == "stop"
    linear = prompt + got.ids
    assert forced_mask(linear, tiny_tokenizer, tiny_tags)[len(prompt) :] == got.forced
    trace = parse(linear, tiny_tags)
    assert trace.well_formed
    assert tuple(len(block.branches) for block in walk(trace.blocks)) == problem.branches

    eos = [tiny_tokenizer.eos_token_id]
    scores = oracle.score(tiny_model, linear, tiny_tags, len(prompt), Limits(), eos, got.forced)
    sampled = ~torch.tensor(got.forced)
    assert torch.equal(scores.choice[sampled], torch.tensor(got.ids)[sampled])
    assert scores.logprobs.isnan().equal(~sampled)
    logprobs = torch.tensor([x for x in got.logprobs if x is not None])
    torch.testing.assert_close(scores.logprobs[sampled], logprobs, atol=1e-4, rtol=1e-4)
    assert (scores.gap >= 0).all()


class Scripted:
    """A model that prefers `script[i]` for the `i`-th token behind the prompt, then `rest[i]`."""

    dtype = torch.float32
    generation_config = None

    def __init__(self, prompt_len: int, vocab: int, script: Sequence[Sequence[int]]) -> None:
        self.vocab, self.script = vocab, script
        self.written = -prompt_len

    def __call__(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        self.written += input_ids.shape[1]
        logits = torch.zeros(1, 1, self.vocab)
        for rank, token in enumerate(self.script[self.written]):
            logits[0, 0, token] = 10.0 - rank
        return SimpleNamespace(logits=logits)


def test_guard_forced_headers_and_eos_in_a_branch(tiny_tokenizer: Any) -> None:
    def token(text: str) -> int:
        (only,) = tiny_tokenizer.encode(text, add_special_tokens=False)
        return int(only)

    eos = tiny_tokenizer.eos_token_id
    outline = "\n<Outline>\n4: a\n</Outline>\n<Outline>\na\n</Outline>\n"
    head = [
        [token("<Parallel>")],
        [token("<Path>"), token("<Goal>")],
    ]  # the guard says no to a path
    plan = [[i] for i in tiny_tokenizer.encode(outline, add_special_tokens=False)]
    header = [[0]] * 5  # forced, whatever the model says: \n <Path> \n 4 :
    conclusion = [[0]] * 3
    script = [
        *head, *plan, [token("</Goal>")],
        *header, [token("a")], [eos],
        *header, [token("</Conclusion>"), token("a")], [token("</Path>")],
        *conclusion, [eos, token("</Conclusion>")], [token("a"), 0], [token("</Parallel>")], [eos],
    ]  # fmt: skip
    prompt = tiny_tokenizer.encode("a", add_special_tokens=False)
    model = Scripted(len(prompt), len(tiny_tokenizer), script)
    got = oracle.generate(model, tiny_tokenizer, prompt, 1000)  # type: ignore[arg-type]

    text = (
        f"<Parallel><Goal>{outline}</Goal>\n<Path>\n4:a</Path>\n<Path>\n2:a</Path>"
        "\n<Conclusion>\n</Conclusion>a</Parallel><|im_end|>"
    )
    assert tiny_tokenizer.decode(got.ids) == text
    written = [i for i, forced in zip(got.ids, got.forced, strict=True) if forced]
    assert tiny_tokenizer.decode(written) == "\n<Path>\n4:</Path>\n<Path>\n2:\n<Conclusion>\n"
    assert [x is None for x in got.logprobs] == got.forced
    assert got.finish == "stop"

    model = Scripted(len(prompt), len(tiny_tokenizer), script)
    cut = oracle.generate(model, tiny_tokenizer, prompt, len(head) + len(plan) + 3)  # type: ignore[arg-type]
    assert (cut.ids, cut.finish) == (got.ids[: len(cut.ids)], "length")
    assert len(cut.ids) == len(cut.forced) == len(cut.logprobs) == len(head) + len(plan) + 3
