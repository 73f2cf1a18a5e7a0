"""What counts for penalties and `min_new_tokens`: every generated token a sequence sees.

SGLang starts its counts at zero with each extend and adds one token per decode
step. A family goes through an extend at each fork and join, and any request
does when it was retracted, so the counts are put back here: for a branch its
visible prefix without its siblings, for the trunk after a join everything.
Forced tokens are part of the text and count; where a sampled token was
replaced, the one that stands there counts.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sglang.srt.sampling import penaltylib

from .req import MultiverseReq
from .rows import extends_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class _Table(NamedTuple):
    """Where a penalizer keeps its state: float `[rows, vocabulary]` and `[rows, 1]`."""

    cumulated: str
    penalties: str
    accumulates: bool  # each occurrence counts, not only the first


_TABLES: dict[type, _Table] = {
    penaltylib.BatchedFrequencyPenalizer: _Table(
        "cumulated_frequency_penalties", "frequency_penalties", accumulates=True
    ),
    penaltylib.BatchedPresencePenalizer: _Table(
        "cumulated_presence_penalties", "presence_penalties", accumulates=False
    ),
    penaltylib.BatchedRepetitionPenalizer: _Table(
        "cumulated_repetition_penalties", "repetition_penalties", accumulates=False
    ),
}


def count_what_is_seen(info: Any, *args: Any, **kwargs: Any) -> None:
    """Hook after `SamplingBatchInfo.from_schedule_batch(batch, …)`; `info` is its result."""
    orchestrator = info.penalizer_orchestrator
    # SGLang keeps the penalizers in a set, whose order differs from process to
    # process, and adding and scaling do not commute: scale last, as it does
    # itself in overlap mode. Also where none is asked for yet: rows that ask may
    # be merged into this batch.
    orchestrator.penalizers = dict(
        sorted(orchestrator.penalizers.items(), key=lambda item: item[1].is_multiplicative)
    )
    if not orchestrator.is_required:
        return
    batch = kwargs["batch"] if "batch" in kwargs else args[-2]
    _count(orchestrator, [_counted(req) for req in batch.reqs], batch.device)


def _count(orchestrator: Any, seen: Sequence[array[int]], device: Any) -> None:
    """Let the ids `seen` by each row count."""
    lengths = [len(ids) for ids in seen]
    if not any(lengths):
        return
    counts = torch.tensor(lengths)
    columns = torch.from_numpy(np.concatenate([np.asarray(ids, dtype=np.int64) for ids in seen]))
    rows = torch.repeat_interleave(counts).to(device, non_blocking=True)
    columns = columns.to(device, non_blocking=True)
    for kind, table in _TABLES.items():
        penalizer = orchestrator.penalizers[kind]
        if penalizer.is_prepared():
            getattr(penalizer, table.cumulated).index_put_(
                (rows, columns),
                getattr(penalizer, table.penalties)[rows, 0],
                accumulate=table.accumulates,
            )
    minimum = orchestrator.penalizers[penaltylib.BatchedMinNewTokensPenalizer]
    if minimum.is_prepared():
        minimum.len_output_tokens += counts.to(device, torch.int32, non_blocking=True)[:, None]


def count_later(original: Callable[[Any], None], batch: Any) -> None:
    """Hook around `ScheduleBatch.cumulate_penalty_output_tokens`, called when a step is planned.

    With overlap the token of the step before is not known then: `count_last` counts
    it when it is.
    """
    if not _is_late(batch):
        original(batch)


def count_last(batch: Any, forward: Any) -> None:
    """Count each row's last token, for the step in flight whose sampling info is `forward`."""
    info = batch.sampling_info
    orchestrator = info.penalizer_orchestrator
    if not orchestrator.is_required or not _is_late(batch):
        return
    first = extends_in(batch)
    last = [req.output_ids[-1:] for req in batch.reqs[first:]]
    _count(orchestrator, [array("q")] * first + last, batch.device)
    info.update_penalties()
    forward.acc_additive_penalties = info.acc_additive_penalties
    forward.acc_scaling_penalties = info.acc_scaling_penalties


def _is_late(batch: Any) -> bool:
    return batch.enable_overlap and any(isinstance(req, MultiverseReq) for req in batch.reqs)


def _counted(req: Any) -> array[int]:
    """The generated ids that `req` sees, if anything asks for them."""
    params = req.sampling_params
    asked = (
        params.frequency_penalty != 0.0
        or params.presence_penalty != 0.0
        or params.repetition_penalty != 1.0
        or params.min_new_tokens > 0
    )
    if not asked or not isinstance(req, MultiverseReq) or req.discards:
        return array("q")
    return generated(req)


def generated(req: MultiverseReq) -> array[int]:
    """The ids that `req` sees behind the prompt, in order, forced ones included."""
    return req.ids()[req.prompt_len :]
