"""Several examples in one row, each as if it were alone.

A packed token sees tokens of its own example only, under that example's
Multiverse visibility, and its position counts from that example's start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sglang_multiverse.structure import Layout, TagTable, layout

from .attention import block_mask, dense_mask, spans
from .encode import IGNORE, Example

OPEN_ROWS = 64
"""Rows that `pack` keeps open: more pack tighter, fewer keep closer to the order given."""


def pack(lengths: Sequence[int], order: Sequence[int], block_size: int) -> list[list[int]]:
    """Fill rows of `block_size` tokens with whole examples, in about the order given.

    Each example goes into the open row it leaves the least room in. Deterministic.

    Returns:
        Rows of indices into `lengths`; examples longer than a row are left out.
    """
    done: list[list[int]] = []
    open_: list[tuple[int, list[int]]] = []  # room, row
    for index in order:
        length = lengths[index]
        if length > block_size:
            continue
        fitting = [k for k, (room, _) in enumerate(open_) if room >= length]
        if fitting:
            best = min(fitting, key=lambda k: open_[k][0])
            room, row = open_[best]
            row.append(index)
            open_[best] = (room - length, row)
            continue
        if len(open_) == OPEN_ROWS:
            fullest = min(range(len(open_)), key=lambda k: open_[k][0])
            done.append(open_.pop(fullest)[1])
        open_.append((block_size - length, [index]))
    return done + [row for _, row in open_]


@dataclass(frozen=True, slots=True)
class Packed:
    """`b` rows of `n` tokens, padded on the right; `d` is the deepest nesting in them.

    Attributes:
        input_ids, labels, position_ids: int64 `[b, n]`.
        segments: int64 `[b, n]`, the example a token is of; -1 in the padding.
        hidden: int64 `[b, n, d, 2]`, hidden intervals in columns of the row.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    segments: torch.Tensor
    hidden: torch.Tensor

    def to(self, device: torch.device) -> Packed:
        return Packed(*(getattr(self, name).to(device) for name in Packed.__slots__))

    def inputs(self, *, flex: bool) -> dict[str, Any]:
        """The keyword arguments of a `transformers` model.

        Args:
            flex: a block mask for `flex_attention`, else bool `[b, 1, n, n]` for
                `segment_attention`; `sdpa` takes it, too.
        """
        inputs = {"input_ids": self.input_ids, "position_ids": self.position_ids}
        if flex:
            return {**inputs, "attention_mask": block_mask(self.segments, self.hidden)}
        mask = dense_mask(self.segments, self.hidden)
        return {**inputs, "attention_mask": mask, "segment_spans": spans(self.segments)}

    @property
    def learned(self) -> int:
        """How many tokens carry loss."""
        return int((self.labels != IGNORE).sum())


@dataclass(frozen=True, slots=True)
class PackedCollator:
    """Collates rows of examples.

    Attributes:
        pad_id: the token of the padding; any id of the vocabulary will do.
        width: tokens of a row; `None` for as many as the longest row has.
    """

    tags: TagTable
    pad_id: int
    width: int | None = None

    def __call__(self, rows: Sequence[Sequence[Example]]) -> Packed:
        placed = [[layout(example.ids, self.tags) for example in row] for row in rows]
        n = self.width or max(sum(len(example) for example in row) for row in rows)
        depth = max((one.hidden.shape[1] for row in placed for one in row), default=0)
        shape = (len(rows), n)
        input_ids = np.full(shape, self.pad_id, dtype=np.int64)
        labels = np.full(shape, IGNORE, dtype=np.int64)
        positions = np.zeros(shape, dtype=np.int64)
        segments = np.full(shape, -1, dtype=np.int64)
        hidden = np.zeros((*shape, depth, 2), dtype=np.int64)
        for b, row in enumerate(rows):
            lo = 0
            for segment, (example, one) in enumerate(zip(row, placed[b], strict=True)):
                hi = lo + len(example)
                input_ids[b, lo:hi] = example.ids
                labels[b, lo:hi] = _own_labels(example, one)
                positions[b, lo:hi] = one.positions
                segments[b, lo:hi] = segment
                # Empty intervals move too and stay empty.
                hidden[b, lo:hi, : one.hidden.shape[1]] = one.hidden + lo
                lo = hi
        return Packed(
            input_ids=torch.from_numpy(input_ids),
            labels=torch.from_numpy(labels),
            position_ids=torch.from_numpy(positions),
            segments=torch.from_numpy(segments),
            hidden=torch.from_numpy(hidden),
        )


def _own_labels(example: Example, placed: Layout) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The labels, int64 `[n]`, without those predicted from a token that the label's own token
    does not see: the last one of another example, or of a sibling branch."""
    labels = np.array(example.labels, dtype=np.int64)
    before = np.arange(len(labels))[:, None] - 1
    unseen = ((placed.hidden[..., 0] <= before) & (before < placed.hidden[..., 1])).any(1)
    labels[unseen] = IGNORE
    labels[0] = IGNORE
    return labels
