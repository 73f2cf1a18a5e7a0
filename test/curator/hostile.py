"""An endpoint that first, or always, does something else than a good model would."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from sglang_multiverse.curator.demo import (
    Known,
    Response,
    Server,
    completion,
    question_of,
    stage_of,
)

Request = dict[str, Any]
Answer = dict[str, Any]
Act = Callable[[Request, Answer], Any]
"""What a request gets in place of the good answer: a `Response`, or something to await for one."""


class Hostile:
    """Does `act` at the first `times` requests of each chain and stage; then it is good."""

    def __init__(
        self,
        known: Iterable[Known],
        act: Act | None = None,
        stages: tuple[str, ...] = ("outline", "graph", "refill", "plan", "rewrite"),
        times: int = 1,
    ) -> None:
        self._known = {one.question.strip(): one for one in known}
        self._act, self._stages, self._times = act, stages, times
        self.calls: Counter[tuple[str, str]] = Counter()
        self.requests: list[Request] = []

    def server(self) -> Server:
        return Server(self.respond)

    async def respond(self, request: Request) -> Response:
        question, stage = question_of(request), stage_of(request)
        self.requests.append(request)
        self.calls[question, stage] += 1
        answer = self._known[question].answers(stage)
        if self._act and stage in self._stages and self.calls[question, stage] <= self._times:
            made = self._act(request, copy.deepcopy(answer))
            return await made if asyncio.iscoroutine(made) else made
        return completion(json.dumps(answer), request)


def saying(text: Callable[[str], str], finish: str = "stop") -> Act:
    """Another text around or instead of the good JSON."""
    return lambda request, answer: completion(text(json.dumps(answer)), request, finish)


def changed(change: Callable[[Answer], Any]) -> Act:
    """Well-formed JSON of the right schema that says something wrong."""

    def act(request: Request, answer: Answer) -> Response:
        change(answer)
        return completion(json.dumps(answer), request)

    return act


def status(code: int, **headers: str) -> Act:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"error": {"message": "no"}}).encode()
    return lambda request, answer: Response(code, body, fields)


def disconnect(after: int) -> Act:
    def act(request: Request, answer: Answer) -> Response:
        good = completion(json.dumps(answer), request)
        return Response(good.status, good.body, good.headers, cut=after)

    return act


def raw(body: bytes, kind: str = "application/json") -> Act:
    return lambda request, answer: Response(body=body, headers={"content-type": kind})


def trickling(request: Request, answer: Answer) -> Response:
    """The good answer, byte by byte, for minutes."""
    return dataclasses.replace(completion(json.dumps(answer), request), drip=0.2)


def silent(seconds: float) -> Act:
    async def act(request: Request, answer: Answer) -> Response:
        await asyncio.sleep(seconds)
        return completion(json.dumps(answer), request)

    return act
