"""Examples as a padded batch with the positions and the mask of their structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch

from sglang_multiverse.structure import TagTable, layout

from .encode import IGNORE, Example


class Batch(TypedDict):
    """The keyword arguments of a `transformers` causal language model.

    `b` examples, padded on the right to `n` tokens.

    Attributes:
        input_ids: int64 `[b, n]`.
        labels: int64 `[b, n]`, `IGNORE` where there is no loss.
        position_ids: int64 `[b, n]`; 0 in the padding.
        attention_mask: floating `[b, 1, n, n]`, added to the attention scores:
            0 where the row sees the column, else the dtype's least value. A row
            of the padding sees all before it, so that its softmax is finite.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class Collator:
    """Collates under dense Multiverse attention: memory is O(b · n²).

    Attributes:
        pad_id: the token of the padding; any id of the vocabulary will do.
        dtype: of the mask; the model's.
    """

    tags: TagTable
    pad_id: int
    dtype: torch.dtype = torch.float32

    def __call__(self, examples: Sequence[Example]) -> Batch:
        b, n = len(examples), max(len(example) for example in examples)
        input_ids = torch.full((b, n), self.pad_id, dtype=torch.int64)
        labels = torch.full((b, n), IGNORE, dtype=torch.int64)
        position_ids = torch.zeros((b, n), dtype=torch.int64)
        # Padding lies behind every real token, so causality alone hides it.
        visible = torch.ones((n, n), dtype=torch.bool).tril().repeat(b, 1, 1)
        for row, example in enumerate(examples):
            m = len(example)
            input_ids[row, :m] = torch.tensor(example.ids)
            labels[row, :m] = torch.tensor(example.labels)
            placed = layout(example.ids, self.tags)
            position_ids[row, :m] = torch.from_numpy(placed.positions)
            visible[row, :m, :m] = torch.from_numpy(placed.dense_mask())
        mask = torch.zeros((b, 1, n, n), dtype=self.dtype)
        mask.masked_fill_(~visible[:, None], torch.finfo(self.dtype).min)
        return Batch(
            input_ids=input_ids, labels=labels, position_ids=position_ids, attention_mask=mask
        )
