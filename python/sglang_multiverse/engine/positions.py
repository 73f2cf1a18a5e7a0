"""Position ids of rows whose index and position differ (DESIGN.md §3).

After a join a row is longer than its longest path, so the next token's position
is its row index plus a (negative) offset that only joins change. The shift is
added to the tensors of the `ForwardBatch`, which a CUDA graph's runner copies
into its own before it replays; nothing here reads a device tensor.
"""

from __future__ import annotations

from typing import Any

import torch

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
    if rows.offsets is None:
        return
    device = result.positions.device
    if result.forward_mode.is_decode():
        # Behind the requests' rows come those of beams, which are SGLang's.
        beams = result.positions.shape[-1] - len(rows.offsets)
        shift = torch.nn.functional.pad(rows.shift(device), (0, beams))
    else:
        pairs = zip(rows.offsets, batch.extend_lens, strict=True)
        shift = to_device([offset for offset, length in pairs for _ in range(length)], device)
    result.positions = result.positions + shift
    if result.mrope_positions is not None:
        # All three axes of a text token have the same position.
        result.mrope_positions = result.mrope_positions + shift
