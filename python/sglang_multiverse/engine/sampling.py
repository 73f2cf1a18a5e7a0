"""The guard and the seeds, applied to a batch's logits and sampling parameters."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import torch

from ..structure import forbidden_ids
from .family import branch_seed
from .req import MultiverseReq

if TYPE_CHECKING:
    from sglang.srt.managers.schedule_batch import ScheduleBatch

_MASK = "multiverse_mask"


def dress(batch: ScheduleBatch, *, seeds: bool) -> None:
    """Attach this step's mask and, with `seeds`, per-row seeds to the batch's sampling info.

    The mask is a pair of int64 index tensors (rows, token ids) into the logits
    `[batch, vocabulary]`. Seeds are set only when a row asks for one; a row
    without one then gets a fresh random seed.
    """
    info = batch.sampling_info
    setattr(info, _MASK, _mask(batch))
    if seeds and any(req.sampling_params.sampling_seed is not None for req in batch.reqs):
        values = [
            secrets.randbits(62)
            if req.sampling_params.sampling_seed is None
            else branch_seed(req.sampling_params.sampling_seed, ())
            for req in batch.reqs
        ]
        info.sampling_seed = torch.tensor(values, dtype=torch.int64, device=batch.device)


def undress(batch: ScheduleBatch, *, seeds: bool) -> None:
    """Take off what `dress` put on, before SGLang filters or merges the batch."""
    setattr(batch.sampling_info, _MASK, None)
    if seeds:
        batch.sampling_info.sampling_seed = None


def _mask(batch: ScheduleBatch) -> tuple[torch.Tensor, torch.Tensor] | None:
    rows: list[int] = []
    columns: list[int] = []
    for row, req in enumerate(batch.reqs):
        if not isinstance(req, MultiverseReq) or req.discards:
            continue
        family = req.family
        if not family.options.guard:
            continue
        vocabulary = family.vocabulary
        masked = forbidden_ids(vocabulary.tags, family.permitted(req), vocabulary.eos_ids)
        rows.extend([row] * len(masked))
        columns.extend(masked)
    if not rows:
        return None
    return (
        torch.tensor(rows, dtype=torch.int64).to(batch.device, non_blocking=True),
        torch.tensor(columns, dtype=torch.int64).to(batch.device, non_blocking=True),
    )


def mask_logits(result: Any, info: Any, logits: torch.Tensor) -> None:
    """Hook after `SamplingBatchInfo.apply_logits_bias`: forbid what `dress` found."""
    mask = getattr(info, _MASK, None)
    if mask is not None:
        logits[mask] = float("-inf")
