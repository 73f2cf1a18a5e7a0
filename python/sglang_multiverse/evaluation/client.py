"""Streamed chat completions of an OpenAI-compatible endpoint: whole answers, timed, or trouble."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from .errors import EvaluationError, RefusedError, TroubleError

_LONGEST_LINE = 2**24
"""Bytes of one event: an answer's sequences come in one."""
_LONGEST_WAIT = 30.0
_HOPELESS = (401, 403, 404)
_AGAIN = (408, 409, 425, 429)


class Answer(NamedTuple):
    """A whole answer.

    Attributes:
        finish: `stop`, or `length` for one that was cut.
        tokens: of the answer; `None` where the endpoint does not say.
        structure: the server's `multiverse` metadata; `None` from an endpoint without.
        ttft: seconds from sending to the first text of the answer; `None` if there was no text.
        seconds: from sending to the end of the stream.
        tries: requests that it took.
    """

    text: str
    reasoning: str
    finish: str
    prompt_tokens: int | None
    tokens: int | None
    structure: dict[str, Any] | None
    ttft: float | None
    seconds: float
    tries: int


class Client:
    """One endpoint, while entered. Not safe for several event loops.

    Args:
        base_url: such as `http://127.0.0.1:30000/v1`.
        timeout: seconds without a word of the answer until it is asked for again.
        retries: further tries of one request.
        backoff: seconds before the second try; doubles.
    """

    def __init__(
        self, base_url: str, api_key: str, *, timeout: float, retries: int, backoff: float
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._api_key, self._timeout = api_key, timeout
        self._retries, self._backoff = retries, backoff

    async def __aenter__(self) -> Client:
        # A proxy cannot reach this machine's own address.
        local = urlsplit(self.base_url).hostname in ("127.0.0.1", "localhost", "::1")
        self._http = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._api_key}"},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            trust_env=not local,
            read_bufsize=_LONGEST_LINE,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.close()

    async def first_model(self, wanted: str = "") -> str:
        """`wanted`, or the first model that the endpoint lists; this also shows that it is there.

        Raises:
            EvaluationError: it is not, refuses the key, or lists no model.
        """
        try:
            async with asyncio.timeout(30), self._http.get(f"{self.base_url}/models") as response:
                if response.status in (401, 403):
                    raise EvaluationError(
                        f"api_key_env: {self.base_url} refuses the key: {response.status}"
                    )
                listed = await response.json(content_type=None) if response.ok else {}
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EvaluationError(
                f"base_url: {self.base_url} cannot be reached: {_line(error)}"
            ) from error
        except ValueError:
            listed = {}
        if wanted:
            return wanted  # not every endpoint lists its models
        try:
            return str(listed["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise EvaluationError(f"model: {self.base_url} lists none; give --model") from None

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        """One whole answer.

        Raises:
            RefusedError: the endpoint refuses this request.
            TroubleError: no whole answer after all retries.
            EvaluationError: it refuses any request: key, address or model are wrong.
        """
        wait = self._backoff
        for tries in range(1, self._retries + 2):
            try:
                return (await self._once(body))._replace(tries=tries)
            except _LaterError as error:
                if tries > self._retries:
                    raise TroubleError(f"{error} ({tries} tries)") from error
                # Apart from each other, so that many do not come back at once.
                pause = max(wait * random.uniform(0.75, 1.25), error.wait)
                await asyncio.sleep(min(pause, _LONGEST_WAIT))
                wait *= 2
        raise AssertionError("unreachable")

    async def flush(self) -> bool:
        """Empty the prefix cache of an SGLang server; whether the endpoint could."""
        root = self.base_url.removesuffix("/v1")
        try:
            async with (
                asyncio.timeout(60),
                self._http.post(f"{root}/flush_cache", params={"timeout": "30"}) as response,
            ):
                return response.ok
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def server_info(self) -> dict[str, Any]:
        """What an SGLang server says of itself that a report may show; empty of others."""
        shown = ("version", "device", "dtype", "attention_backend", "tp_size", "dp_size")
        root = self.base_url.removesuffix("/v1")
        try:
            async with asyncio.timeout(30), self._http.get(f"{root}/server_info") as response:
                told = await response.json() if response.ok else {}
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return {}
        return {key: told[key] for key in shown if key in told} if isinstance(told, dict) else {}

    async def _once(self, body: Mapping[str, Any]) -> Answer:
        sent = {**body, "stream": True, "stream_options": {"include_usage": True}}
        begun = time.perf_counter()
        reading = _Reading()
        try:
            async with asyncio.timeout(self._timeout) as silence:
                async with self._http.post(
                    f"{self.base_url}/chat/completions", json=sent
                ) as response:
                    if not response.ok:
                        await self._complain(response)
                    async for event in _events(response.content):
                        reading.take(event, time.perf_counter() - begun)
                        silence.reschedule(asyncio.get_running_loop().time() + self._timeout)
        except EvaluationError:
            raise
        except TimeoutError as error:
            raise _LaterError(f"silent for {self._timeout:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _LaterError(_line(error) or type(error).__name__) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _LaterError(f"the stream is no chat completion: {_line(error)}") from error
        return reading.answer(time.perf_counter() - begun)

    async def _complain(self, response: aiohttp.ClientResponse) -> None:
        said = " ".join((await response.text(errors="replace")).split())[:300]
        status = response.status
        if status in _HOPELESS:
            raise EvaluationError(f"base_url: {self.base_url} answers {status}: {said}")
        if status >= 500 or status in _AGAIN:
            after = response.headers.get("Retry-After", "")
            raise _LaterError(f"{status}: {said}", float(after) if after.isdecimal() else 0.0)
        raise RefusedError(f"{status}: {said}")


class _LaterError(Exception):
    """This try gave no whole answer; `wait` is how long the endpoint wants to be left alone."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


class _Reading:
    """One stream so far."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._finish = ""
        self._usage: dict[str, Any] = {}
        self._structure: dict[str, Any] | None = None
        self._first: float | None = None

    def take(self, event: dict[str, Any], at: float) -> None:
        if "error" in event:
            raise _LaterError(f"error in the stream: {json.dumps(event['error'])[:300]}")
        self._usage = event.get("usage") or self._usage
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            text, reasoning = delta.get("content"), delta.get("reasoning_content")
            if (text or reasoning) and self._first is None:
                self._first = at
            self._text.append(text or "")
            self._reasoning.append(reasoning or "")
            self._finish = choice.get("finish_reason") or self._finish
            self._structure = choice.get("multiverse") or self._structure

    def answer(self, seconds: float) -> Answer:
        """Raises `_LaterError` where the stream ended before the answer did."""
        if self._finish in ("", "abort"):
            raise _LaterError("the stream ended before the answer")
        tokens = self._usage.get("completion_tokens")
        if tokens is None and self._structure:
            tokens = self._structure.get("tokens")
        return Answer(
            text=_clean("".join(self._text)),
            reasoning=_clean("".join(self._reasoning)),
            finish=self._finish,
            prompt_tokens=self._usage.get("prompt_tokens"),
            tokens=tokens,
            structure=self._structure,
            ttft=self._first,
            seconds=seconds,
            tries=1,
        )


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[dict[str, Any]]:
    async for line in content:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        yield json.loads(data)


def _clean(text: str) -> str:
    """Without halves of surrogate pairs, which no file can hold."""
    return text.encode(errors="replace").decode()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
