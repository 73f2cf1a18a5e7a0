"""Shows, without a GPU, that code never waits for one.

A `FakeDevice` tensor says that it is on `meta`: it has a shape and no values, so
whatever needs a value (`.item()`, `.tolist()`, `.cpu()`, `bool(t)`, indexing by
a mask) raises there, as it would make the host wait on a GPU.
"""

from __future__ import annotations

import torch

DEVICE = torch.device("meta")


def on_device(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=DEVICE)
