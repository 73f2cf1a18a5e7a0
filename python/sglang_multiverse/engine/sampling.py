"""The guard and the seeds: what a family adds to a batch's sampling."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

import torch

from .penalties import count_last
from .req import MultiverseReq
from .rows import rows_of, to_device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sglang.srt.managers.schedule_batch import ScheduleBatch
    from sglang.srt.sampling.sampling_batch_info import SamplingBatchInfo

_MASK = "multiverse_mask"
_DRAWS = "multiverse_draws"
_STREAMS = "multiverse_streams"
_COPY = "multiverse_copy"
_DEFAULT_SEED = 42  # SGLang's own, in deterministic mode


def dress(info: SamplingBatchInfo, batch: ScheduleBatch) -> None:
    """Attach this step's mask and draws to its sampling info, for the hooks below.

    The mask is a `GuardMask`; the draws are `(row, number in [0, 1))` for each row
    that has a seed.
    """
    rows = rows_of(batch)
    setattr(info, _MASK, rows.mask(batch.device))
    setattr(info, _STREAMS, _streams(batch))
    draws = [(row, _draw(req)) for row, req in rows.seeded]
    setattr(info, _DRAWS, draws or None)


def undress(info: SamplingBatchInfo) -> None:
    """Take off what `dress` put on: rows move when SGLang filters or merges the batch."""
    for name in (_MASK, _DRAWS, _STREAMS):
        setattr(info, name, None)


def remember_copy(result: SamplingBatchInfo, info: SamplingBatchInfo) -> None:
    """Hook after `SamplingBatchInfo.copy_for_forward`: what a step in flight samples by."""
    setattr(info, _COPY, result)


def dress_forward(batch: ScheduleBatch) -> None:
    """Complete the sampling info of the step in flight, now that the last one is read."""
    info = getattr(batch.sampling_info, _COPY)
    count_last(batch, info)
    dress(info, batch)
    setattr(batch.sampling_info, _COPY, None)


def path_seed(seed: int, path: Sequence[int]) -> int:
    """The seed of a branch, in `[0, 2**63)`; the trunk keeps the request's own."""
    if not path:
        return seed
    text = f"{seed}/{'.'.join(map(str, path))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def _streams(batch: ScheduleBatch) -> tuple[torch.Tensor, torch.Tensor] | None:
    """In deterministic mode, each row's seed and its place in the row's stream: int64 `[rows]`.

    SGLang takes the position for a place. Siblings share positions, and a
    position names another token before and after a retraction; the number of a
    sequence's own tokens does neither.
    """
    if batch.sampling_info.sampling_seed is None:
        return None
    seeds, places = [], []
    for req in batch.reqs:
        seed = req.sampling_params.sampling_seed
        path = getattr(req, "path", ())  # a beam has none
        seeds.append(path_seed(_DEFAULT_SEED if seed is None else seed, path))
        places.append(len(req.output_ids))
    return to_device(seeds, batch.device), to_device(places, batch.device)


def sample_logprobs_by_stream(
    original: Callable[..., Any],
    sampler: Any,
    logprobs: torch.Tensor,
    info: Any,
    positions: torch.Tensor,
) -> Any:
    """Hook around `Sampler._sample_from_logprobs`, the deterministic mode's on-policy path."""
    streams = getattr(info, _STREAMS, None)
    if streams is not None:
        info, positions = dataclasses.replace(info, sampling_seed=streams[0]), streams[1]
    return original(sampler, logprobs, info, positions)


def mask_logits(_result: Any, info: Any, logits: torch.Tensor) -> None:
    """Hook after `SamplingBatchInfo.apply_logits_bias`: forbid what `dress` found."""
    mask = getattr(info, _MASK, None)
    if mask is not None:
        mask.apply(logits)


def _draw(req: MultiverseReq) -> float:
    """A number in [0, 1) that depends on (seed, path, tokens so far) and nothing else.

    Each branch has a stream of its own, and no stream knows of the schedule: not
    which rows are beside it, nor whether its KV was computed anew in between.
    """
    seed = req.sampling_params.sampling_seed
    text = f"{seed}/{'.'.join(map(str, req.path))}/{len(req.output_ids)}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def sample_with_draws(
    original: Callable[..., Any],
    sampler: Any,
    probs: torch.Tensor,
    info: Any,
    positions: torch.Tensor,
    simple_sampling_case: bool,
) -> Any:
    """Hook around `Sampler._sample_from_probs`: rows with a draw are sampled by it.

    `probs` is float `[batch, vocabulary]`, after temperature. SGLang itself
    honours seeds only in its deterministic mode, which then stays in charge, with
    a seed and a place for each path.
    """
    streams = getattr(info, _STREAMS, None)
    if streams is not None:
        info, positions = dataclasses.replace(info, sampling_seed=streams[0]), streams[1]
    draws = getattr(info, _DRAWS, None)
    if draws is None or info.sampling_seed is not None:
        return original(sampler, probs, info, positions, simple_sampling_case)
    rows = to_device([row for row, _ in draws], probs.device)
    chosen = inverse_cdf(
        probs[rows],
        to_device([draw for _, draw in draws], probs.device, torch.float64),
        info.top_ks[rows],
        info.top_ps[rows],
        info.min_ps[rows],
    )
    ids, capture = original(sampler, probs, info, positions, simple_sampling_case)
    ids[rows] = chosen.to(ids.dtype)
    return ids, capture


def inverse_cdf(
    probs: torch.Tensor,
    draws: torch.Tensor,
    top_ks: torch.Tensor,
    top_ps: torch.Tensor,
    min_ps: torch.Tensor,
) -> torch.Tensor:
    """Sample one token per row by a given uniform number.

    Args:
        probs: float `[n, vocabulary]`, each row sums to 1.
        draws: float64 `[n]` in [0, 1).
        top_ks, top_ps, min_ps: `[n]`, SGLang's filters, applied in this order.

    Returns:
        int64 `[n]`, token ids.
    """
    ranked, ids = probs.double().sort(dim=-1, descending=True)
    rank = torch.arange(ranked.shape[-1], device=probs.device)
    before = ranked.cumsum(dim=-1) - ranked
    keep = (
        (rank < top_ks[:, None])
        & (before <= top_ps[:, None])
        & (ranked >= ranked[:, :1] * min_ps[:, None])
    )
    ranked = ranked * keep
    cdf = ranked.cumsum(dim=-1)
    place = torch.searchsorted(cdf, (draws * cdf[:, -1])[:, None], right=True)
    last = keep.sum(dim=-1, keepdim=True) - 1
    return ids.gather(1, torch.minimum(place, last)).squeeze(1)
