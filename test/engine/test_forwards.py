"""How many forwards a forked answer takes, alone: one a token, and one more a fork and a join.

With mixed chunks: otherwise a branch waits while its sibling's own branches are extended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest

from modelless.script import Script, texts, tokenizer
from sglang_multiverse.structure import Block, outline_label, parse, resolve_tags

TAGS = resolve_tags(tokenizer())


def header(label: str) -> int:
    return len(tokenizer().encode(TAGS.dialect.branch_header(label), add_special_tokens=False))


CONCLUSION = len(tokenizer().encode(TAGS.dialect.conclusion_header, add_special_tokens=False))


def forwards(ids: Sequence[int], lo: int, hi: int, blocks: Iterable[Block], label: str = "") -> int:
    """For `ids[lo:hi]` with `blocks` among them: each is sampled, but for headers."""
    count = hi - lo
    for block in blocks:
        branches = block.branches
        count -= branches[-1].span.hi - branches[0].span.lo
        times = []
        for index, (branch, outline) in enumerate(zip(branches, block.outlines, strict=True), 1):
            text = tokenizer().decode(ids[outline.lo : outline.hi])
            name = outline_label(text, index, parent=label)
            time = forwards(ids, branch.span.lo, branch.span.hi, branch.blocks, name)
            times.append(time - header(name))
        count += max(times) + 2 - CONCLUSION
    return count


@pytest.mark.parametrize("overlap", [False, True], ids=["", "overlap"])
def test_a_fork_and_a_join_cost_one_forward_each(overlap: bool) -> None:
    script = Script("--enable-mixed-chunk", slots=4096, rows=64, overlap=overlap)
    compared = nested = 0
    for number in range(40):
        before = script.scheduler.forward_ct
        rid = script.ask(number, 0)
        assert rid is not None
        script.finish(2000)
        prompt, answer = list(script.prompts[rid]), script.scheduler.answers[rid].ids
        whole = [*prompt, *answer]
        trace = parse(whole, TAGS)
        expected = forwards(whole, len(prompt), len(whole), trace.blocks)
        # With overlap, the step in flight when the end token is read.
        assert script.scheduler.forward_ct - before == expected + overlap, number
        compared += 1
        nested += any(branch.blocks for block in trace.blocks for branch in block.branches)
    assert compared >= 20 and nested >= 5


def prompt_forwards(prompts: Sequence[Sequence[int]], *flags: str, sees: bool) -> list[int]:
    script = Script(*flags, slots=4096, rows=64, sees=sees)
    counts = []
    for prompt in prompts:
        before = script.scheduler.forward_ct
        script.scheduler.ask(prompt, max_new_tokens=1)
        script.finish(2000)
        counts.append(script.scheduler.forward_ct - before)
        assert script.flush()
    return counts


@pytest.mark.parametrize("flags", ["", "--chunked-prefill-size 16"])
def test_a_prompt_with_blocks_is_one_extend_where_attention_can_hide(flags: str) -> None:
    """Not one for each block's branches and the text between; with chunks, as many as it fills."""
    more = tokenizer().encode("abc", add_special_tokens=False)
    prompts = [[*text, *more, *other, *more] for text, other in pairwise(texts()[:20])]
    assert all(parse(prompt, TAGS).blocks for prompt in prompts)
    in_line = prompt_forwards(prompts, *flags.split(), sees=True)
    assert in_line == [-(-len(prompt) // 16) if flags else 1 for prompt in prompts]
    assert sum(prompt_forwards(prompts, *flags.split(), sees=False)) > sum(in_line) + 40
