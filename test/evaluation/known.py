"""An endpoint that knows the right answers, and gives the ones that a test wants."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sglang_multiverse.stand_in import Response, Server

STRUCTURE = {
    "tokens": 40,
    "critical_path_tokens": 25,
    "degree_of_parallelism": 1.6,
    "blocks": 1,
    "branches": 2,
    "depth": 1,
}


@dataclass(frozen=True)
class Said:
    """One answer as it goes over the wire."""

    text: str
    finish: str = "stop"
    tokens: int = 40
    structure: Mapping[str, Any] | None = None


def sse(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def stream(said: Said, *, wait: float = 0.0, **changes: Any) -> Response:
    """A streamed chat completion in the form of SGLang's; `wait` seconds before each event."""
    choice = {"index": 0, "finish_reason": None}
    half = len(said.text) // 2
    events = [{"role": "assistant", "content": ""}]
    events += [{"content": part} for part in (said.text[:half], said.text[half:])]
    sent = [sse({"choices": [{**choice, "delta": delta}]}) for delta in events]
    last: dict[str, Any] = {**choice, "delta": {}, "finish_reason": said.finish}
    if said.structure is not None:
        last["multiverse"] = said.structure
    sent.append(sse({"choices": [last]}))
    usage = {"prompt_tokens": 7, "completion_tokens": said.tokens}
    sent += [sse({"choices": [], "usage": usage}), b"data: [DONE]\n\n"]
    return Response(events=[(wait, event) for event in sent], **changes)


def question(body: Mapping[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


Script = Callable[[dict[str, Any], int], Said | Response]
"""What a request gets: its body, and how often the same was asked before."""


@dataclass
class Known:
    """A stand-in that counts what it is asked."""

    script: Script
    wait: float = 0.0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    finished: Counter[str] = field(default_factory=Counter)

    async def respond(self, body: dict[str, Any]) -> Response:
        key = json.dumps(body, sort_keys=True)
        times = self.asked[key]
        self.asked[key] += 1
        self.bodies.append(body)
        said = self.script(body, times)
        if isinstance(said, Response):
            return said
        if self.wait:
            await asyncio.sleep(self.wait)
        self.finished[key] += 1
        return stream(said)

    def serve(self, *models: str) -> Server:
        return Server(self.respond, models or ("known",))


class Flushing(Server):
    """One that also has an SGLang server's further routes."""

    def __init__(self, known: Known) -> None:
        super().__init__(known.respond)
        self.flushes: list[int] = []
        self._known = known

    async def _answer(self, first: str, body: bytes) -> Response:
        if "/flush_cache" in first:
            self.flushes.append(len(self._known.bodies))
            return Response()
        if "/server_info" in first:
            told = {"device": "cpu", "dtype": "float32", "model_path": "/secret"}
            return Response(body=json.dumps(told).encode())
        return await super()._answer(first, body)
