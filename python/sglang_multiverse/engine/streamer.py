"""What leaves the scheduler: one stream per family, in linear order."""

from __future__ import annotations

from typing import Any

from sglang.srt.managers.schedule_batch import Req
from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer

from .answer import metadata
from .http.outputs import DELTAS, SUMMARY
from .req import MultiverseReq
from .scoring import give_scores


class MultiverseOutputStreamer(SchedulerOutputStreamer):
    """Branches are never streamed as such: their text reaches the client in the trunk's."""

    has_additional_customized_info = True

    def _stream_output_generation(
        self, reqs: list[Any], return_logprob: bool, skip_req: Any = None, **kwargs: Any
    ) -> None:
        news = [req for req in reqs if _has_news(req)]
        for req in news:
            if isinstance(req, MultiverseReq):
                count_reasoning(req)
        give_scores(news)
        # Named call: a slotted dataclass is rebuilt, which breaks zero-argument super().
        SchedulerOutputStreamer._stream_output_generation(
            self, news, return_logprob, skip_req, **kwargs
        )

    def build_additional_customized_info(self, reqs: list[Any]) -> dict[str, list[Any]]:
        """The keys that `engine.http.outputs` takes up, one entry per emitted request."""
        return {
            SUMMARY: [_summary(req) for req in reqs],
            DELTAS: [_deltas(req) for req in reqs],
        }


def _summary(req: Any) -> dict[str, Any] | None:
    return metadata(req.family) if isinstance(req, MultiverseReq) and req.finished() else None


def _deltas(req: Any) -> list[tuple[str, list[int]]] | None:
    return req.family.take_deltas() if isinstance(req, MultiverseReq) else None


def _has_news(req: Any) -> bool:
    """Whether a request has something to send: a trunk whose text grew, or ended."""
    if not isinstance(req, MultiverseReq):
        return True
    if req.is_branch:
        return False
    return bool(
        req.finished() or len(req.output_ids) > req.send_token_offset or req.family.has_deltas
    )


def count_reasoning(req: MultiverseReq) -> None:
    """Bring `reasoning_tokens` up to date with the linear text, branches included."""
    reading = req.family.reasoning
    if not req.think_end_ids and reading is None:
        return
    ids = list(req.output_ids_through_stop)
    news, req.reasoning_read = ids[req.reasoning_read :], len(ids)
    if reading is None:
        Req.update_reasoning_tokens(req, news, req.think_end_ids)
        return
    for token in news:
        inside = bool(reading.frames) or reading.think_open
        reading.push(token)
        req.reasoning_tokens += inside or bool(reading.frames) or reading.think_open
