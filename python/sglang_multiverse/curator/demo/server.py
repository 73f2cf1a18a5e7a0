"""A small OpenAI-compatible endpoint on this machine whose answers are known beforehand.

It is no model. It is there so that the demo, the tests and the benchmark go through real
HTTP: `respond` decides what a request gets, down to silence and broken connections.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..request import estimate

_TASKS = {
    "# Task: outline": "outline",
    "# Task: dependencies": "graph",
    "# Task: sentences of each step": "refill",
    "# Task: goals and conclusions": "plan",
    "# Task: paths that stand alone": "rewrite",
}


@dataclass(frozen=True, slots=True)
class Response:
    """What goes over the wire.

    Attributes:
        cut: bytes of it that are sent before the connection closes; `None` for all, and open.
        drip: seconds between any two bytes.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    drip: float = 0.0


Respond = Callable[[dict[str, Any]], Awaitable[Response]]


def completion(text: str, request: Mapping[str, Any], finish: str = "stop") -> Response:
    """A chat completion."""
    prompt = sum(estimate(message["content"]) for message in request["messages"])
    answer = estimate(text)
    body = {
        "id": "known",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
        },
    }
    return Response(body=json.dumps(body).encode())


def question_of(request: Mapping[str, Any]) -> str:
    """The question that a request of the curator is about."""
    text: str = request["messages"][1]["content"]
    return text.removeprefix("# Question\n\n").partition("\n\n# Reasoning\n\n")[0]


def stage_of(request: Mapping[str, Any]) -> str:
    """The stage that a request of the curator belongs to."""
    text: str = request["messages"][1]["content"]
    return _TASKS[max(_TASKS, key=text.rfind)]


def problems_of(request: Mapping[str, Any]) -> str:
    """What was wrong with the answer before; empty for a first one."""
    messages = request["messages"]
    return str(messages[-1]["content"]) if len(messages) > 2 else ""


class Server:
    """The endpoint in a thread of its own, on a free port, while it is entered."""

    def __init__(self, respond: Respond, models: tuple[str, ...] = ("known",)) -> None:
        self._respond, self._models = respond, models
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Server:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**26)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("latin-1").split("\r\n")
                fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
                body = await reader.readexactly(int(fields.get("content-length", 0)))
                answer = await self._answer(first, body)
                data = _bytes(answer)
                pieces = [data[i : i + 1] for i in range(len(data))] if answer.drip else [data]
                for piece in pieces:
                    writer.write(piece[: answer.cut])
                    await writer.drain()
                    await asyncio.sleep(answer.drip)
                if answer.cut is not None:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()

    async def _answer(self, first: str, body: bytes) -> Response:
        path = first.split(" ")[1]
        if path.endswith("/models"):
            listed = [{"id": name, "object": "model"} for name in self._models]
            return Response(body=json.dumps({"object": "list", "data": listed}).encode())
        if not path.endswith("/chat/completions"):
            return Response(404, b"{}")
        return await self._respond(json.loads(body))


def _bytes(answer: Response) -> bytes:
    fields = {
        "content-type": "application/json",
        "content-length": str(len(answer.body)),
        **answer.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {answer.status} .\r\n{lines}\r\n".encode() + answer.body
