"""What the rows of a batch are, looked at once per batch and not once per step.

SGLang gives a batch a new list of requests whenever rows come or go, so what
depends on which rows there are is kept for as long as the list is the same.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from .guard import GuardMask, guard_mask
from .req import MultiverseReq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sglang.srt.managers.schedule_batch import ScheduleBatch

    from ..kernels.grouping import Link

_ROWS = "multiverse_rows"


class Rows:
    """The rows of one list of requests, which it holds so that its identity means something."""

    def __init__(self, reqs: list[Any]) -> None:
        self.reqs = reqs
        self._shift: torch.Tensor | None = None
        self._mask: GuardMask | None = None
        self._tags_read = -1
        self.chains: Sequence[Sequence[Link]] | None = None  # `visibility.shared_prefixes`

    @cached_property
    def ours(self) -> list[tuple[int, MultiverseReq]]:
        """`(row, request)` of those that are ours."""
        return [(row, req) for row, req in enumerate(self.reqs) if isinstance(req, MultiverseReq)]

    @cached_property
    def offsets(self) -> list[int] | None:
        """The position offset of each row; `None` if all are zero.

        Only a join changes one, and the row is not in a batch then.
        """
        offsets = [0] * len(self.reqs)
        for row, req in self.ours:
            offsets[row] = req.position_offset
        return offsets if any(offsets) else None

    @cached_property
    def laid_out(self) -> bool:
        """Whether a row's known text may have whole blocks in line."""
        return any(req.layout is not None for _, req in self.ours)

    @cached_property
    def seeded(self) -> list[tuple[int, MultiverseReq]]:
        return [
            (row, req) for row, req in self.ours if req.sampling_params.sampling_seed is not None
        ]

    @cached_property
    def branches(self) -> list[tuple[int, MultiverseReq]]:
        return [(row, req) for row, req in self.ours if req.parent is not None]

    def shift(self, device: Any) -> torch.Tensor:
        """`offsets` as int64 `[rows]` on `device`."""
        if self._shift is None:
            self._shift = to_device(self.offsets or [0] * len(self.reqs), device)
        return self._shift

    def mask(self, device: Any) -> GuardMask | None:
        """The guard's mask of the next token of each row."""
        tags_read = sum(req.automaton.tags_read for _, req in self.ours)
        if tags_read != self._tags_read:
            self._tags_read = tags_read
            self._mask = guard_mask(self.reqs, device)
        return self._mask


def rows_of(batch: ScheduleBatch) -> Rows:
    """The rows of `batch` as they are now."""
    rows: Rows | None = getattr(batch, _ROWS, None)
    if rows is None or rows.reqs is not batch.reqs:
        rows = Rows(batch.reqs)
        setattr(batch, _ROWS, rows)
    return rows


def extends_in(batch: ScheduleBatch) -> int:
    """How many of a step's rows, the first ones, are extends; the others decode (mixed chunks)."""
    if not batch.forward_mode.is_extend():
        return 0
    return len(batch.reqs) - len(batch.decoding_reqs or ())


def to_device(
    values: list[Any], device: torch.device | str, dtype: torch.dtype = torch.int64
) -> torch.Tensor:
    """`values` as a tensor on `device`."""
    return copied(torch.tensor(values, dtype=dtype), device)


def copied(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """`tensor`, which is on the host, on `device`, without waiting for what runs there."""
    if torch.device(device).type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
