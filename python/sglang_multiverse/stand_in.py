"""A small OpenAI-compatible endpoint on this machine whose answers are known beforehand.

It is no model. It is there so that the curator's demo, the tests and the benchmarks go through
real HTTP: `respond` decides what a request gets, down to silence and broken connections.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Response:
    """What goes over the wire.

    Attributes:
        cut: bytes of it that are sent before the connection closes; `None` for all, and open.
        drip: seconds between any two bytes.
        events: a stream instead of a body: seconds to wait, then what is sent. With `cut`, the
            connection closes in mid-stream after that many events.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    drip: float = 0.0
    events: Sequence[tuple[float, bytes]] | None = None


Respond = Callable[[dict[str, Any]], Awaitable[Response]]


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
                if answer.events is not None:
                    await _stream(answer, writer)
                    if answer.cut is not None:
                        return
                    continue
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


async def _stream(answer: Response, writer: asyncio.StreamWriter) -> None:
    fields = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}
    writer.write(_head(answer.status, {**fields, **answer.headers}))
    for wait, data in (answer.events or ())[: answer.cut]:
        await writer.drain()
        await asyncio.sleep(wait)
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
    if answer.cut is None:
        writer.write(b"0\r\n\r\n")
    await writer.drain()


def _bytes(answer: Response) -> bytes:
    fields = {"content-type": "application/json", "content-length": str(len(answer.body))}
    return _head(answer.status, {**fields, **answer.headers}) + answer.body


def _head(status: int, fields: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} .\r\n{lines}\r\n".encode()
