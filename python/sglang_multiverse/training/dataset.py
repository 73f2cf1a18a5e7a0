"""JSONL conversations as examples, and the order in which a run reads them.

The order is a pure function of the seed and the pass, so a resumed run needs
to know only how far it was.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sglang_multiverse.structure import MULTIVERSE, TagTable, parse

from .encode import Example, Message, encode
from .packing import pack

Messages = Sequence[Message]
Sequential = Callable[[str], str]


class DataError(ValueError):
    """A data file that cannot be trained on; the message names file and line."""


class Conversation(NamedTuple):
    """A line of a data file.

    Attributes:
        messages: with the structure they were written in.
        sequential: the same without, where the line brings it (`sequential_messages`, as the
            curator writes them); otherwise it is `messages` without the tags.
    """

    messages: Messages
    sequential: Messages | None = None


def read_conversations(paths: Sequence[str]) -> Iterator[Conversation]:
    """The conversations of JSONL files, in order."""
    if not paths:
        raise DataError("data: no file was given")
    for path in paths:
        try:
            # Not `splitlines`: JSON strings may hold line breaks of Unicode's own as they are.
            lines = Path(path).read_text(encoding="utf-8").split("\n")
        except OSError as error:
            raise DataError(f"data: cannot read {path}: {error.strerror}") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _conversation(line, f"{path}:{number}")


def _conversation(line: str, where: str) -> Conversation:
    try:
        row = json.loads(line)
        given = row["messages"], row.get("sequential_messages")
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"data: {where} is not an object with messages: {error!r}") from error
    messages, sequential = given
    return Conversation(
        _messages(messages, where), None if sequential is None else _messages(sequential, where)
    )


def _messages(given: Any, where: str) -> Messages:
    try:
        well = all(isinstance(m["role"], str) and isinstance(m["content"], str) for m in given)
    except (TypeError, KeyError) as error:
        raise DataError(f"data: {where} is not an object with messages: {error!r}") from error
    if not well or not any(m["role"] == "assistant" for m in given):
        raise DataError(f"data: {where}: no assistant turn, or a role or content is not a string")
    return [{"role": m["role"], "content": m["content"]} for m in given]


def flatten(messages: Messages, sequential: Sequential) -> Messages:
    """The same conversation with the assistant's turns written in one sequence, without tags."""
    return [
        {**message, "content": sequential(message["content"])}
        if message["role"] == "assistant"
        else message
        for message in messages
    ]


@dataclass(frozen=True, slots=True)
class Corpus:
    """All examples of a run.

    Attributes:
        parallel: with the structure they were written in.
        sequential: the same ones without; empty where no pass needs them.
        shares: per pass, the share of examples that are taken from `parallel`.
    """

    parallel: list[Example]
    sequential: list[Example]
    shares: tuple[float, ...]
    block_size: int
    seed: int

    def rows(self, number: int) -> list[list[Example]]:
        """The packed rows of pass `number`, in reading order. Those too long are left out."""
        # An example that has turned parallel stays so: which ones come first is drawn once.
        count = len(self.parallel) or len(self.sequential)
        rank = list(range(count))
        random.Random(f"mixture {self.seed}").shuffle(rank)
        turned = round(self.shares[number] * count)
        examples = [
            self.parallel[i] if rank[i] < turned else self.sequential[i] for i in range(count)
        ]
        order = list(range(count))
        draw = random.Random(f"order {self.seed} {number}")
        draw.shuffle(order)
        rows = pack([len(example) for example in examples], order, self.block_size)
        # `pack` closes the fullest rows first; the order of lengths must not follow from it.
        draw.shuffle(rows)
        return [[examples[i] for i in row] for row in rows]

    def structure(self, tags: TagTable) -> tuple[int, int]:
        """How many examples open a parallel block, and how many are not well formed."""
        traces = [parse(example.ids, tags) for example in self.parallel]
        return sum(bool(t.blocks) for t in traces), sum(not t.well_formed for t in traces)

    @property
    def too_long(self) -> int:
        """How many examples fit no row, in at least one of their forms."""
        forms = [form for form in (self.parallel, self.sequential) if form]
        return sum(any(len(e) > self.block_size for e in both) for both in zip(*forms, strict=True))


def shares_of(
    mixture: Literal["parallel", "ramp"], epochs: int, *, causal: bool
) -> tuple[float, ...]:
    """Per pass, the share of parallel examples: `ramp` rises from 0 to 1."""
    if causal:
        return (0.0,) * epochs
    if mixture == "parallel" or epochs == 1:
        return (1.0,) * epochs
    return tuple(number / (epochs - 1) for number in range(epochs))


def build_corpus(
    conversations: Iterable[Conversation],
    tokenizer: Any,
    tags: TagTable,
    shares: tuple[float, ...],
    block_size: int,
    seed: int,
) -> Corpus:
    """Encode what the passes need."""
    listed = list(conversations)
    parallel, sequential = [], []
    if any(share > 0 for share in shares):
        parallel = [encode(one.messages, tokenizer, tags) for one in listed]
    if any(share < 1 for share in shares):
        from .data import sequential_text

        def plain(text: str) -> str:
            return sequential_text(text, MULTIVERSE)

        sequential = [
            encode(one.sequential or flatten(one.messages, plain), tokenizer, tags)
            for one in listed
        ]
    corpus = Corpus(parallel, sequential, shares, block_size, seed)
    if corpus.too_long == len(listed):
        raise DataError(f"data: none of {len(listed)} examples fits block_size = {block_size}")
    return corpus
