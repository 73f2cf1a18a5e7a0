"""A conversation as token ids and labels.

The loss falls on what the model itself must write: the assistant's tokens up to
and including the end of its turn, without those that the engine forces (the
header of each branch and of the conclusion).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sglang_multiverse.structure import Block, TagTable, break_tags, outline_label, parse

IGNORE = -100
"""The label of a token without loss, as `torch.nn.functional.cross_entropy` expects it."""

Message = Mapping[str, str]


class EncodingError(ValueError):
    """A conversation that the chat template does not render turn by turn."""


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation of `n` tokens.

    Attributes:
        ids: the `n` token ids.
        labels: the `n` ids again, `IGNORE` where there is no loss. Label `i` is
            the token at `i`; the shift by one is the loss's business.
    """

    ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.ids)


def encode(messages: Sequence[Message], tokenizer: Any, tags: TagTable) -> Example:
    """Render a conversation with the tokenizer's chat template and label it.

    Each stretch of the text is tokenised by itself, as at inference, where the
    prompt ends before the answer begins. As there, tags are structure in the
    assistant's turns only.

    Raises:
        EncodingError: the rendering of a conversation's beginning is not the
            beginning of its rendering, so that turns cannot be told apart.
    """
    messages = [
        message
        if message["role"] == "assistant"
        else {**message, "content": break_tags(message["content"], tags.dialect)}
        for message in messages
    ]
    ids: list[int] = []
    learned: list[bool] = []
    done = ""

    def extend(until: str) -> list[int]:
        nonlocal done
        if not until.startswith(done):
            raise EncodingError(
                "the chat template renders a longer conversation differently from its beginning: "
                f"{until[: len(done)]!r} is not {done!r}"
            )
        added: list[int] = tokenizer.encode(until[len(done) :], add_special_tokens=False)
        done = until
        ids.extend(added)
        return added

    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = extend(_render(tokenizer, messages[:i], add_generation_prompt=True))
        learned.extend([False] * len(prompt))
        turn = extend(_render(tokenizer, messages[: i + 1], add_generation_prompt=False))
        end = _turn_length(turn, tokenizer.eos_token_id)
        learned.extend([True] * end + [False] * (len(turn) - end))
    if not done:
        raise EncodingError("the conversation has no assistant turn")

    forced = forced_mask(ids, tokenizer, tags)
    labels = [
        token if wanted and not given else IGNORE
        for token, wanted, given in zip(ids, learned, forced, strict=True)
    ]
    return Example(ids, labels)


def forced_mask(ids: Sequence[int], tokenizer: Any, tags: TagTable) -> list[bool]:
    """Which of `ids` the engine writes by itself; as long as `ids`.

    Where the text departs from what the engine would write, the tokens from
    there on count as the model's own.
    """
    forced = [False] * len(ids)

    def mark(start: int, text: str) -> None:
        for offset, token in enumerate(tokenizer.encode(text, add_special_tokens=False)):
            if start + offset >= len(ids) or ids[start + offset] != token:
                return
            forced[start + offset] = True

    def visit(blocks: Sequence[Block], parent: str) -> None:
        for block in blocks:
            pairs = zip(block.outlines, block.branches, strict=False)
            for index, (outline, branch) in enumerate(pairs, 1):
                text = tokenizer.decode(ids[outline.lo : outline.hi])
                label = outline_label(text, index, parent)
                mark(branch.span.lo, tags.dialect.branch_header(label))
                visit(branch.blocks, label)
            last = block.branches[-1]
            if last.closed and len(block.branches) == len(block.outlines):
                mark(last.span.hi, tags.dialect.conclusion_header)

    visit(parse(ids, tags).blocks, "")
    return forced


def _render(tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    return str(
        tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    )


def _turn_length(turn: Sequence[int], eos: int | None) -> int:
    """Tokens of a turn up to its EOS: templates put a line break behind it that nobody writes."""
    for i in range(len(turn) - 1, -1, -1):
        if turn[i] == eos:
            return i + 1
    return len(turn)
