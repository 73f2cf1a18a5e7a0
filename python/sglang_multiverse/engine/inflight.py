"""Steps in flight: launched before the results of the step before them are read.

With SGLang's overlap scheduling a step is planned and launched while the tokens of
the last one are still being computed. A row that turns out to have forked, closed,
ended or been retracted in between is in that step all the same. Its KV there is
what a fork or a join waits for (`MultiverseReq.is_drained`); its token is nobody's.

A token that we put in a sampled one's place (a header's, `</Path>` for the end
token) must stand there before the next step reads it, so it is put in on the
device, by the rule that `reading` applies to the result later.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..structure import Role
from .known import layout_of, offset_at
from .reading import forced_id, may_close
from .req import MultiverseReq
from .rows import extends_in, rows_of, to_device
from .scoring import note_starts
from .stage import Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch

_STINTS = "multiverse_stints"
_NONE = -1


def keep_decoding(running: ScheduleBatch, last: ScheduleBatch | None) -> bool:
    """Take out of the batches the rows that do not decode: parked, closed, retracted, waiting.

    Returns whether a row that stays will have left after one more step.
    """
    drains = False
    for batch in (running, last):
        if batch is None:
            continue
        rows = [req for req in batch.reqs if isinstance(req, MultiverseReq)]
        leaving = [req for req in rows if not req.decodes]
        if leaving:
            batch.filter_batch(reqs_to_exclude=leaving)
            running.batch_is_full = False
        for req in rows:
            if req.stage is Stage.DRAIN:
                drains = True
            elif req.decodes and req.stage is not Stage.DECODE:
                req.become(Stage.DECODE)  # its extend is in flight
    return drains


class Arrived(NamedTuple):
    """The rows of a step whose result is in."""

    wanted: list[MultiverseReq]
    stale: list[MultiverseReq]  # they left the step after its launch


def note_extend(batch: ScheduleBatch) -> None:
    """The extend of these rows is about to be launched."""
    for row, req in enumerate(batch.reqs[: extends_in(batch)]):
        if isinstance(req, MultiverseReq):
            req.extending += 1
            end = batch.prefix_lens[row] + batch.extend_lens[row]
            if (known := layout_of(req, end)) is not None:
                req.position_offset = offset_at(known, end)


def is_noted(result: Any) -> bool:
    return hasattr(result, _STINTS)


def note_launch(batch: ScheduleBatch, result: Any) -> None:
    """Remember on `result` which stint each row of the step is in."""
    note_starts(result)
    setattr(result, _STINTS, [getattr(req, "stint", 0) for req in batch.reqs])


def arrived(batch: ScheduleBatch, result: Any) -> Arrived:
    """Whose result this is; requests that have ended are in neither list."""
    wanted: list[MultiverseReq] = []
    stale: list[MultiverseReq] = []
    for req, stint in zip(batch.reqs, getattr(result, _STINTS), strict=True):
        if isinstance(req, MultiverseReq) and req.finished_reason is None:
            (wanted if req.stint == stint else stale).append(req)
    return Arrived(wanted, stale)


@contextmanager
def passed_over(stale: Sequence[Req]) -> Iterator[None]:
    """Let SGLang pass over the rows `stale`, as it does over those it retracted itself."""
    before = [req.is_retracted for req in stale]
    for req in stale:
        req.is_retracted = True
    try:
        yield
    finally:
        for req, was in zip(stale, before, strict=True):
            req.is_retracted = was


class Replacement(NamedTuple):
    """What stands in place of the tokens sampled in one step, on its rows of branches.

    Attributes:
        rows: int64 `[n]`, the indices of these rows in the batch.
        forced: int64 `[n]`, the token that stands there whatever was sampled, or -1.
        table: int64 `[families + 1, k]`, the tokens that close a branch, padded with -1;
            none in its first row.
        family: int64 `[n]`, the row of `table` that holds for each.
        close: the id of `</Path>`.
    """

    rows: torch.Tensor
    forced: torch.Tensor
    table: torch.Tensor
    family: torch.Tensor
    close: int

    def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
        """From the sampled tokens `[n]` to those the next step reads."""
        ends = (tokens[:, None] == self.table[self.family]).any(dim=1)
        tokens = torch.where(ends, self.close, tokens)
        return torch.where(self.forced == _NONE, tokens, self.forced)


def replacement(batch: ScheduleBatch) -> Replacement | None:
    """For the tokens about to be sampled; `None` where nothing can be replaced."""
    device = batch.device
    rows: list[int] = []
    forced: list[int] = []
    family: list[int] = []
    closing: dict[frozenset[int], int] = {frozenset(): 0}
    close = None
    for row, req in rows_of(batch).branches:
        if req.discards:
            continue
        close = req.family.vocabulary.tags.id_of[Role.BRANCH_CLOSE]
        token = forced_id(req, len(req.output_ids) + 1)
        ends = req.family.closing_ids if token is None and may_close(req) else frozenset()
        rows.append(row)
        forced.append(_NONE if token is None else token)
        family.append(closing.setdefault(ends, len(closing)))
    if close is None:
        return None
    width = max(map(len, closing))
    table = [[*ids, *[_NONE] * (width - len(ids))] for ids in map(sorted, closing)]
    return Replacement(
        to_device(rows, device),
        to_device(forced, device),
        to_device(table, device),
        to_device(family, device),
        close,
    )
