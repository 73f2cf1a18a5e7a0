"""A Multiverse text as the engine computes it: rows that branch off, share a prefix and join."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from lone import LoneRunner, Row

from sglang_multiverse.kernels.grouping import Link
from sglang_multiverse.structure import TagTable, layout, parse
from sglang_multiverse.structure.trace import Block


@dataclass
class Text:
    """Linear ids, and what `transformers` says behind each of them.

    Attributes:
        logits: float `[n, vocabulary]`, of a dense mask and explicit positions.
    """

    ids: list[int]
    positions: list[int]
    hidden: torch.Tensor
    blocks: Sequence[Block]
    logits: torch.Tensor


def read(ids: list[int], tags: TagTable, model: Any) -> Text:
    found = layout(ids, tags)
    mask = torch.from_numpy(found.dense_mask())[None, None]
    bias = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    with torch.no_grad():
        logits = model(
            torch.tensor([ids]),
            attention_mask=bias,
            position_ids=torch.from_numpy(found.positions)[None],
        ).logits[0]
    hidden = torch.from_numpy(found.hidden)
    return Text(ids, found.positions.tolist(), hidden, parse(ids, tags).blocks, logits)


class Write(NamedTuple):
    """In one step, `row` is given the text's token `at`."""

    row: Row
    at: int
    chain: tuple[Link, ...]


def steps(
    runner: LoneRunner,
    row: Row,
    lo: int,
    hi: int,
    blocks: Sequence[Block],
    chain: tuple[Link, ...] = (),
) -> Iterator[list[Write]]:
    """What is decoded in each step to write `[lo, hi)` behind `row`, all branches side by side."""
    at = lo
    for block in blocks:
        for i in range(at, block.goal_end):
            yield [Write(row, i, chain)]
        shared = len(row.slots)
        inner = (*chain, Link(("block", row.number, block.goal_end), shared))
        children = [runner.row(row) for _ in block.branches]
        live = [
            steps(runner, child, branch.span.lo, branch.span.hi, branch.blocks, inner)
            for child, branch in zip(children, block.branches, strict=True)
        ]
        while step := [write for one in live for write in next(one, [])]:
            yield step
        for child in children:  # the join: slots change owner
            runner.adopt(row, child.slots[shared:])
        at = block.branches[-1].span.hi
    for i in range(at, hi):
        yield [Write(row, i, chain)]


class Decoded(NamedTuple):
    """Attributes:
    error: the largest difference of a logit to the text's.
    shared: steps in which rows shared a prefix.
    in_graph: steps that a CUDA graph computed.
    """

    steps: int
    error: float
    shared: int
    in_graph: int


def decode(
    runner: LoneRunner, texts: Sequence[Text], prompt: int, most: int | None = None
) -> Decoded:
    """Write all texts behind their first `prompt` tokens side by side, forced; `most` steps."""
    live = []
    for text in texts:
        row = runner.row()
        runner.extend([row], [text.ids[:prompt]], text.positions[:prompt], None)
        live.append(steps(runner, row, prompt, len(text.ids), text.blocks))
    last: tuple[Any, list[tuple[Link, ...]]] = ((), [])
    count, error, shared, in_graph = 0, 0.0, 0, 0
    while True:
        step = [
            (text, write) for text, one in zip(texts, live, strict=True) for write in next(one, [])
        ]
        if not step or count == most:
            return Decoded(count, error, shared, in_graph)
        rows = [write.row for _, write in step]
        chains = [write.chain for _, write in step]
        if last != (rows, chains):  # the same object for as long as nothing of it changes
            last = (rows, chains)
        logits = runner.decode(
            rows,
            [text.ids[write.at] for text, write in step],
            [text.positions[write.at] for text, write in step],
            last[1],
        )
        want = torch.stack([text.logits[write.at] for text, write in step])
        error = max(error, (logits - want).abs().max().item())
        count += 1
        shared += runner.shares
        in_graph += runner.in_graph
