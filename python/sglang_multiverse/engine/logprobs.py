"""Slices of SGLang's per-token log probability lists, moved between a branch and its parent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sglang.srt.managers.schedule_batch import Req

    from .req import MultiverseReq


class LogprobRows:
    """A slice of a request's per-token logprob lists, kept in SGLang's own shape."""

    NAMES = (
        "output_token_logprobs_val",
        "output_token_logprobs_idx",
        "output_top_logprobs_val",
        "output_top_logprobs_idx",
        "output_token_ids_logprobs_val",
        "output_token_ids_logprobs_idx",
    )

    def __init__(self, rows: dict[str, list[Any]]) -> None:
        self.rows = rows

    @classmethod
    def of_forced(cls, ids: Sequence[int]) -> LogprobRows:
        """A forced token has no logprob: it was not drawn from the distribution."""
        rows: dict[str, list[Any]] = {name: [None] * len(ids) for name in cls.NAMES}
        rows["output_token_logprobs_idx"] = list(ids)
        return cls(rows)

    @classmethod
    def of(cls, req: Req, lo: int, hi: int) -> LogprobRows:
        return cls({name: list((getattr(req.logprob, name) or [])[lo:hi]) for name in cls.NAMES})

    def _wanted(self, req: Req) -> list[str]:
        names = list(self.NAMES[:2])
        if req.logprob.top_logprobs_num > 0:
            names += self.NAMES[2:4]
        if req.logprob.token_ids_logprob is not None:
            names += self.NAMES[4:]
        return names

    def append_to(self, req: Req) -> None:
        for name in self._wanted(req):
            getattr(req.logprob, name).extend(self.rows[name])

    def overwrite_last(self, req: Req) -> None:
        for name in self._wanted(req):
            getattr(req.logprob, name)[-1] = self.rows[name][-1]


def settle(req: MultiverseReq) -> None:
    """Bring the lists of `req` in line with what `reading` made of the last token."""
    if not req.return_logprob:
        return
    kept = len(req.output_ids)
    for name in LogprobRows.NAMES:
        rows = getattr(req.logprob, name)
        if rows:
            del rows[kept:]
    if req.replaced and kept:
        LogprobRows.of_forced([req.output_ids[-1]]).overwrite_last(req)
