"""Position ids of rows whose index and position differ (DESIGN.md §3).

After a join a row is longer than its longest path, so the next token's position
is its row index plus a (negative) offset that only joins change. The shift is
added to the tensors of the `ForwardBatch`, which a CUDA graph's runner copies
into its own before it replays; nothing here reads a device tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .req import MultiverseReq


def shift_positions(result: Any, *args: Any, **kwargs: Any) -> None:
    """Hook after `ForwardBatch.init_new(batch, …)`; `result` is the new `ForwardBatch`.

    `positions` is int64 `[tokens]`: one per row when decoding, and
    `extend_lens[i]` consecutive ones per row when extending. `mrope_positions`,
    where the model has them, is int64 `[3, tokens]`. New tensors take their
    place: the old ones may be in use by a step that still runs.
    """
    batch = kwargs["batch"] if "batch" in kwargs else args[-2]
    offsets = row_offsets(batch.reqs)
    if offsets is None:
        return
    if not result.forward_mode.is_decode():
        offsets = [
            offset
            for offset, length in zip(offsets, batch.extend_lens, strict=True)
            for _ in range(length)
        ]
    shift = to_device(offsets, result.positions.device)
    result.positions = result.positions + shift
    if result.mrope_positions is not None:
        # All three axes of a text token have the same position.
        result.mrope_positions = result.mrope_positions + shift


def row_offsets(reqs: Sequence[Any]) -> list[int] | None:
    """One offset per row; `None` if all are zero, which costs one look at each row."""
    offsets = [req.position_offset if isinstance(req, MultiverseReq) else 0 for req in reqs]
    return offsets if any(offsets) else None


def to_device(
    values: list[Any], device: torch.device | str, dtype: torch.dtype = torch.int64
) -> torch.Tensor:
    """A tensor `[len(values)]` on `device`, copied without waiting for what runs there."""
    tensor = torch.tensor(values, dtype=dtype)
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
