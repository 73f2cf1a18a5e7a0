"""Position ids of rows whose index and position differ (DESIGN.md §3).

After a join a row is longer than its longest path, so the next token's position
is its row index plus a (negative) offset that only joins change. The shift is
added to the tensors of the `ForwardBatch`, which a CUDA graph's runner copies
into its own before it replays; nothing here reads a device tensor. In an extend
that has whole blocks in line, each token has the position of its layout.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from .known import layout_of
from .rows import rows_of, to_device


def shift_positions(result: Any, *args: Any, **kwargs: Any) -> None:
    """Hook after `ForwardBatch.init_new(batch, …)`; `result` is the new `ForwardBatch`.

    `positions` is int64 `[tokens]`: one per row when decoding, and
    `extend_lens[i]` consecutive ones per row when extending. `mrope_positions`,
    where the model has them, is int64 `[3, tokens]`. New tensors take their
    place: the old ones may be in use by a step that still runs.
    """
    batch = kwargs["batch"] if "batch" in kwargs else args[-2]
    rows = rows_of(batch)
    decodes = result.forward_mode.is_decode()
    if rows.offsets is None and (decodes or not rows.laid_out):
        return
    device = result.positions.device
    if decodes:
        # Behind the requests' rows come those of beams, which are SGLang's.
        beams = result.positions.shape[-1] - len(batch.reqs)
        shift = torch.nn.functional.pad(rows.shift(device), (0, beams))
    else:
        shift = to_device(list(itertools.chain.from_iterable(_shifts(batch))), device)
    result.positions = result.positions + shift
    if result.mrope_positions is not None:
        # All three axes of a text token have the same position.
        result.mrope_positions = result.mrope_positions + shift


def _shifts(batch: Any) -> Iterator[list[int]]:
    """For each row of an extend, position minus row index of each of its tokens."""
    rows = rows_of(batch)
    offsets = rows.offsets or [0] * len(batch.reqs)
    for req, offset, start, length in zip(
        batch.reqs, offsets, batch.prefix_lens, batch.extend_lens, strict=True
    ):
        known = layout_of(req, start + length)
        if known is None:
            yield [offset] * length
        else:
            indices = np.arange(start, start + length)
            yield (known.positions[start : start + length] - indices).tolist()
