"""What leaves the scheduler: one stream per family, in linear order."""

from __future__ import annotations

from typing import Any

from sglang.srt.managers.scheduler_components.output_streamer import SchedulerOutputStreamer

from .req import MultiverseReq


class MultiverseOutputStreamer(SchedulerOutputStreamer):
    """Branches are never streamed as such: their text reaches the client in the trunk's."""

    def _stream_output_generation(
        self, reqs: list[Any], return_logprob: bool, skip_req: Any = None, **kwargs: Any
    ) -> None:
        super()._stream_output_generation(
            [req for req in reqs if _has_news(req)], return_logprob, skip_req, **kwargs
        )


def _has_news(req: Any) -> bool:
    """Whether a request has something to send: a trunk whose text grew, or ended."""
    if not isinstance(req, MultiverseReq):
        return True
    if req.is_branch:
        return False
    return req.finished() or len(req.output_ids) > req.send_token_offset
