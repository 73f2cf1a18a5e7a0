"""Position ids of rows whose index and position differ (DESIGN.md §3).

After a join a row is longer than its longest path, so the next token's position
is its row index plus a (negative) offset that only joins change.
"""

from __future__ import annotations

from typing import Any

import torch


def shift_positions(result: Any, *args: Any, **kwargs: Any) -> None:
    """Hook after `ForwardBatch.init_new(batch, …)`; `result` is the new `ForwardBatch`.

    `positions` is int64 `[tokens]`: one per row when decoding, and
    `extend_lens[i]` consecutive ones per row when extending.
    """
    batch = kwargs["batch"] if "batch" in kwargs else args[-2]
    offsets = [getattr(req, "position_offset", 0) for req in batch.reqs]
    if not any(offsets):
        return
    shift = torch.tensor(offsets, dtype=result.positions.dtype)
    if not result.forward_mode.is_decode():
        shift = torch.repeat_interleave(shift, torch.tensor(batch.extend_lens))
    result.positions = result.positions + shift.to(result.positions.device, non_blocking=True)
