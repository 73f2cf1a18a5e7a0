"""Asking through the official `openai` client, as any user would."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from openai import OpenAI

from .transcript import Transcript

_TIMEOUT = 300.0


class DemoError(RuntimeError):
    """The server is not what the demo needs; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Its linear text, what the server says of its structure, and how long it took."""

    text: str
    finish_reason: str | None
    summary: Mapping[str, Any]
    seconds: float


@dataclass(slots=True)
class Asker:
    """One prompt to one server.

    Attributes:
        url: of the server, without `/v1`.
        sampling: parameters of the request, such as `max_tokens`.
    """

    url: str
    prompt: str
    sampling: Mapping[str, Any]
    client: OpenAI = field(init=False)

    def __post_init__(self) -> None:
        # No retries: one that takes twice as long must not look like one that was slow.
        self.client = OpenAI(
            base_url=f"{self.url}/v1", api_key="none", timeout=_TIMEOUT, max_retries=0
        )

    def watch(self, on_piece: Callable[[str, str], None]) -> Answer:
        """Stream the branches as they grow; `on_piece` gets each path and its new text.

        Raises:
            DemoError: the server does not say which branch a text belongs to.
        """
        transcript, finish_reason = Transcript(), None
        summary: Mapping[str, Any] = {}
        start = time.perf_counter()
        stream = self.client.chat.completions.create(
            **self._request({"stream": "branches"}), stream=True
        )
        for chunk in stream:
            for choice in chunk.choices:
                note = (choice.model_extra or {}).get("multiverse")
                if choice.delta.content:
                    if note is None:
                        raise DemoError("the server sends no branches: it serves no forks")
                    transcript.add(note["path"], choice.delta.content)
                    on_piece(note["path"], choice.delta.content)
                if choice.finish_reason:
                    finish_reason, summary = choice.finish_reason, note or {}
        return Answer(transcript.text, finish_reason, summary, time.perf_counter() - start)

    def measure(self, **options: Any) -> Answer:
        """Ask with an empty cache, so that every run has the same work before it."""
        self._flush()
        start = time.perf_counter()
        answer = self.client.chat.completions.create(**self._request(options))
        seconds = time.perf_counter() - start
        choice = answer.choices[0]
        summary = (choice.model_extra or {}).get("multiverse") or {}
        return Answer(choice.message.content or "", choice.finish_reason, summary, seconds)

    def _request(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "model": "default",
            "messages": [{"role": "user", "content": self.prompt}],
            "extra_body": {"multiverse": dict(options)},
            **self.sampling,
        }

    def _flush(self) -> None:
        # The server flushes only when nothing runs; the last answer may just be on its way out.
        request = urllib.request.Request(f"{self.url}/flush_cache?timeout=30", method="POST")
        try:
            urllib.request.urlopen(request, timeout=60).close()
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace").strip()
            raise DemoError(f"the server could not flush its cache: {said}") from error
