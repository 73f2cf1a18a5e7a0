"""Every example is read back by the project's own parser before it is written."""

from __future__ import annotations

from typing import NamedTuple

from sglang_multiverse.structure import Statistics, TagTable, Tokenizer, parse, walk

from .answers import check
from .conversation import Conversation
from .twin import sequential_text


class InvalidExampleError(RuntimeError):
    """The generator made an example that does not hold what it promises."""

    def __init__(self, example: Conversation, why: str) -> None:
        super().__init__(f"{example.split} {example.kind} example of seed {example.seed}: {why}")


class Measured(NamedTuple):
    """A verified example; the statistics are those of its last answer.

    Attributes:
        tokens: of all messages, without what a chat template adds.
    """

    example: Conversation
    tokens: int
    statistics: Statistics


def verify(example: Conversation, tokenizer: Tokenizer, tags: TagTable) -> Measured:
    """Read the example back.

    Raises:
        InvalidExampleError: it is not well formed, opens other blocks than
            announced, fails its own check, or is not told apart by its twin.
    """
    ids = tokenizer.encode(example.solution, add_special_tokens=False)
    trace = parse(ids, tags)
    if trace.defects:
        raise InvalidExampleError(example, "; ".join(trace.defects))
    branches = tuple(len(block.branches) for block in walk(trace.blocks))
    if branches != example.branches:
        raise InvalidExampleError(example, f"{branches} branches, not {example.branches}")
    if not check(example, example.solution):
        raise InvalidExampleError(example, "its own solution fails the check")
    if not check(example, sequential_text(example.solution, tags.dialect)):
        raise InvalidExampleError(example, "its twin fails the check")
    asked = tokenizer.encode(example.prompt, add_special_tokens=False)
    if tags.has_tags(asked):
        raise InvalidExampleError(example, "the prompt holds a tag")
    texts = [message["content"] for message in example.messages]
    tokens = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
    return Measured(example, tokens, trace.statistics())
