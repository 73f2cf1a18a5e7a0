"""A server that says what a test wants it to say, to the real client."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from demo.pieces import LINEAR, PIECES, SUMMARY


class Stub(ThreadingHTTPServer):
    """`summary` goes with the answer; `None` acts as a server that knows no forks."""

    def __init__(self, summary: dict[str, Any] | None, flush_status: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.summary, self.flush_status = summary, flush_status
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def choice(self, **rest: Any) -> dict[str, Any]:
        noted = {} if self.summary is None else {"multiverse": self.summary}
        return {"index": 0, "finish_reason": "stop", **noted, **rest}

    def chunks(self) -> Iterator[dict[str, Any]]:
        for path, text in PIECES:
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            if self.summary is not None:
                choice["multiverse"] = {"path": path}
            yield choice
        yield self.choice(delta={})


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/flush_cache"):
            self.server.requests.append({"flush": True})
            self._send(self.server.flush_status, "text/plain", "busy")
            return
        request = json.loads(body)
        self.server.requests.append(request)
        head = {"id": "a", "created": 0, "model": "m"}
        if request.get("stream"):
            events = [
                {**head, "object": "chat.completion.chunk", "choices": [choice]}
                for choice in self.server.chunks()
            ]
            text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
            self._send(200, "text/event-stream", text + "data: [DONE]\n\n")
        else:
            choice = self.server.choice(message={"role": "assistant", "content": LINEAR})
            answer = {**head, "object": "chat.completion", "choices": [choice]}
            self._send(200, "application/json", json.dumps(answer))

    def _send(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def stub(summary: dict[str, Any] | None = SUMMARY, flush_status: int = 200) -> Iterator[Stub]:
    server = Stub(summary, flush_status)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
