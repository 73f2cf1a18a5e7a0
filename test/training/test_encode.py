"""Conversations as labelled ids, and batches that mean what their examples mean."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch.nn import functional

from models import problems
from sglang_multiverse.structure import MULTIVERSE, TagTable, break_tags, parse
from sglang_multiverse.training.collator import Collator
from sglang_multiverse.training.encode import (
    IGNORE,
    EncodingError,
    Example,
    encode,
    forced_mask,
)

FORCED = re.compile(r"\n<Path>\n[\d.]+:|\n<Conclusion>\n")


def encoded(problem: problems.Problem, tokenizer: Any, tags: TagTable) -> Example:
    messages = [
        {"role": "user", "content": problem.prompt},
        {"role": "assistant", "content": problem.solution},
    ]
    return encode(messages, tokenizer, tags)


@pytest.mark.parametrize("kind", problems.KINDS)
def test_loss_is_on_what_the_model_writes_itself(
    kind: problems.Kind, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    problem = problems.generate(0, "held-out", kind)
    example = encoded(problem, tiny_tokenizer, tiny_tags)
    learned = [token for token, label in zip(example.ids, example.labels, strict=True) if label > 0]
    assert learned == [label for label in example.labels if label != IGNORE]
    assert tiny_tokenizer.decode(learned) == FORCED.sub("", problem.solution) + "<|im_end|>"


def test_every_assistant_turn_is_learned_and_no_user_turn(
    tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    messages = [
        {"role": "user", "content": "Tom has 2 <Path> cups."},
        {"role": "assistant", "content": "Answer: Tom 2"},
        {"role": "user", "content": "And Mia?"},
        {"role": "assistant", "content": "Answer: Mia 3"},
    ]
    example = encode(messages, tiny_tokenizer, tiny_tags)
    learned = tiny_tokenizer.decode([label for label in example.labels if label != IGNORE])
    assert learned == "Answer: Tom 2<|im_end|>Answer: Mia 3<|im_end|>"
    # As the server renders it: what a user writes is never structure.
    messages[0]["content"] = break_tags(messages[0]["content"], MULTIVERSE)
    prompt = tiny_tokenizer.apply_chat_template(
        messages[:3], tokenize=False, add_generation_prompt=True
    )
    prompt_ids = tiny_tokenizer.encode(prompt, add_special_tokens=False)
    assert example.ids[: len(prompt_ids)] == prompt_ids
    assert not tiny_tags.has_tags(example.ids)


def test_forced_tokens_end_where_the_text_departs_from_the_header(
    tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    goal = "<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n<Outline>\nb\n</Outline>\n</Goal>"
    text = f"{goal}\n<Path>\n7: x\n</Path>\n<Path>\n2: y\n</Path> <Conclusion>\n"
    ids = tiny_tokenizer.encode(text, add_special_tokens=False)
    forced = forced_mask(ids, tiny_tokenizer, tiny_tags)
    marked = [token for token, is_forced in zip(ids, forced, strict=True) if is_forced]
    assert tiny_tokenizer.decode(marked) == "\n<Path>\n\n<Path>\n2:"


def test_a_template_that_rewrites_earlier_turns_is_refused(
    tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    class Forgetful:
        eos_token_id = tiny_tokenizer.eos_token_id
        encode = staticmethod(tiny_tokenizer.encode)

        @staticmethod
        def apply_chat_template(messages: list[dict[str, str]], **_: Any) -> str:
            return messages[-1]["content"]

    with pytest.raises(EncodingError, match="from its beginning"):
        encode(
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            Forgetful(),
            tiny_tags,
        )


@torch.no_grad()
def test_a_batch_gives_the_logits_of_its_examples(
    tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    collate = Collator(tiny_tags, tiny_tokenizer.pad_token_id)
    examples = [
        encoded(problems.generate(1, "held-out", kind), tiny_tokenizer, tiny_tags)
        for kind in problems.KINDS
    ]
    together = collate(examples)
    labels = together.pop("labels")
    logits = tiny_model(**together).logits
    for row, example in enumerate(examples):
        alone = collate([example])
        assert labels[row, : len(example)].tolist() == alone.pop("labels")[0].tolist()
        assert (labels[row, len(example) :] == IGNORE).all()
        expected = tiny_model(**alone).logits[0]
        torch.testing.assert_close(logits[row, : len(example)], expected, atol=1e-4, rtol=1e-4)


def test_a_branch_learns_nothing_from_its_siblings(
    tiny_model: Any, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    example = encoded(problems.generate(2, "held-out", "nested"), tiny_tokenizer, tiny_tags)
    batch = Collator(tiny_tags, tiny_tokenizer.pad_token_id)([example])
    block = parse(example.ids, tiny_tags).blocks[0]
    first, second = block.branches[0].span, block.branches[1].span

    def gradient(lo: int, hi: int) -> torch.Tensor:
        """Of the loss of the tokens `[lo, hi)`, per token: float32 `[n]`."""
        embedded = tiny_model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
        logits = tiny_model(
            inputs_embeds=embedded,
            position_ids=batch["position_ids"],
            attention_mask=batch["attention_mask"],
        ).logits[0]
        loss = functional.cross_entropy(logits[lo - 1 : hi - 1], batch["input_ids"][0, lo:hi])
        (slope,) = torch.autograd.grad(loss, embedded)
        return slope[0].norm(dim=-1)

    # The token a branch starts with is predicted by its predecessor in the linear text, which
    # is the sibling's last one: it is forced, and carries no loss.
    of_second = gradient(second.lo + 1, second.hi)
    assert (of_second[first.lo : first.hi] == 0).all()
    assert (of_second[: first.lo] > 0).all()
    assert (gradient(second.hi + 1, len(example))[first.lo : second.hi] > 0).all()
