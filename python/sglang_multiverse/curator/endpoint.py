"""Calls to an OpenAI-compatible endpoint: retries, pace, account, budget."""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import time
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
import openai
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.chat import ChatCompletion

from .config import RunConfig, StageSettings
from .errors import BudgetReachedError, CuratorError, EndpointTroubleError, StageFailedError
from .request import Reply, Request, estimate

POOL = 8
"""Calls at once for one pool of connections."""
MOST_POOLS = 64


class Asked(Protocol):
    """Whoever answers requests."""

    async def ask(self, request: Request) -> Reply: ...


@dataclass(slots=True)
class Account:
    """What this run has used so far."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    def add(self, reply: Reply, cost: float) -> None:
        self.calls += 1
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        self.cost += cost

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def cost_of(reply: Reply, settings: StageSettings) -> float:
    """In the unit of the prices, which are for a million tokens."""
    spent = reply.prompt_tokens * settings.price_in + reply.completion_tokens * settings.price_out
    return spent / 1e6


class Pace:
    """Spreads amounts evenly, `per_minute` of them; 0 for no limit."""

    def __init__(self, per_minute: int) -> None:
        self._seconds = 60.0 / per_minute if per_minute else 0.0
        self._free = 0.0

    async def take(self, amount: int) -> None:
        """Wait for one's turn, and book `amount`."""
        if not self._seconds:
            return
        start = max(self._free, time.monotonic())
        self._free = start + amount * self._seconds
        if (wait := start - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    def correct(self, amount: int) -> None:
        """Book what was not known when the turn was taken."""
        self._free += amount * self._seconds


class Endpoint:
    """The client of one run. Not safe for several event loops.

    The openai client retries 408, 409, 429, 5xx, time-outs and lost connections
    with growing waits, and waits as long as Retry-After says.
    """

    def __init__(self, config: RunConfig, api_key: str) -> None:
        self.account = Account()
        self._config = config
        # A pool of httpx looks at each of its connections, for each of them, at every request:
        # many small pools take a quarter of the processor's time of one large one.
        pools = min(-(-config.concurrency // POOL), MOST_POOLS)
        trusted = ssl.create_default_context()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=4 * POOL)
        # A proxy cannot reach this machine's own address.
        local = httpx.URL(config.base_url).host in ("127.0.0.1", "localhost", "::1")
        self._clients = [
            AsyncOpenAI(
                base_url=config.base_url,
                api_key=api_key,
                timeout=config.timeout,
                max_retries=config.retries,
                http_client=DefaultAsyncHttpxClient(
                    verify=trusted, limits=limits, trust_env=not local
                ),
            )
            for _ in range(pools)
        ]
        self._turn = itertools.cycle(self._clients)
        self._requests, self._tokens = (
            Pace(config.requests_per_minute),
            Pace(config.tokens_per_minute),
        )
        self._guided = config.response_format != "none"
        self._limit = "max_tokens"

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    async def first_model(self) -> str:
        """The first model that the endpoint lists; this also shows that it is there.

        Raises:
            CuratorError: it is not, refuses the key, or lists no model.
        """
        where = self._config.base_url
        # A list of models takes no thought: who is silent here for long is not there.
        patience = min(self._config.timeout, 30.0)
        client = next(self._turn).with_options(max_retries=1, timeout=patience)
        try:
            listed = (await client.models.list()).data
        except openai.APIConnectionError as error:
            why = _line(error.__cause__ or error) or _line(error)
            raise CuratorError(f"base_url: {where} cannot be reached: {why}") from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise CuratorError(f"api_key_env: {where} refuses the key: {_line(error)}") from error
        except (openai.OpenAIError, ValueError, AttributeError) as error:
            if self._config.model:
                return self._config.model  # not every endpoint lists its models
            status = isinstance(error, openai.APIStatusError) and f"status {error.status_code}"
            why = status or "its answer is no list"
            raise CuratorError(
                f"model: {where} does not list its models ({why}); give --model"
            ) from error
        if self._config.model:
            return self._config.model
        if not listed:
            raise CuratorError(f"model: {where} lists none; give --model")
        return listed[0].id

    async def ask(self, request: Request) -> Reply:
        """One answer, whatever it is.

        Raises:
            BudgetReachedError: before the call.
            EndpointTroubleError: no answer after all retries.
            StageFailedError: the endpoint refuses this very request.
            CuratorError: it refuses any request: key, address or model are wrong.
        """
        budget = self._config
        if (budget.max_tokens and self.account.tokens >= budget.max_tokens) or (
            budget.max_cost and self.account.cost >= budget.max_cost
        ):
            raise BudgetReachedError
        await self._requests.take(1)
        await self._tokens.take(request.estimated_tokens)
        reply = _read(await self._create(request), request)
        self._tokens.correct(
            reply.prompt_tokens + reply.completion_tokens - request.estimated_tokens
        )
        self.account.add(reply, cost_of(reply, request.settings))
        return reply

    async def _create(self, request: Request) -> Any:
        guided, limit = self._guided, self._limit
        try:
            # A reply that trickles in resets the client's time-out with every byte. Between tries
            # the client waits for at most a minute.
            retries = self._config.retries
            async with asyncio.timeout(2 * self._config.timeout * (retries + 1) + 60 * retries):
                # As `chat.completions.create`, which walks through every message and the schema
                # to look for files to send.
                return await next(self._turn).post(
                    "/chat/completions", body=_body(request, guided, limit), cast_to=ChatCompletion
                )
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if guided and self._config.response_format == "auto" and _about_format(error):
                self._guided = False
                return await self._create(request)
            if limit == "max_tokens" and "max_completion_tokens" in str(error):
                self._limit = "max_completion_tokens"  # what newer endpoints call it
                return await self._create(request)
            raise StageFailedError(request.name, f"the endpoint refuses: {_line(error)}") from error
        except (
            openai.AuthenticationError,
            openai.PermissionDeniedError,
            openai.NotFoundError,
        ) as error:
            raise CuratorError(
                f"base_url: {self._config.base_url} refuses model {request.settings.model!r}: "
                f"{_line(error)}"
            ) from error
        except (openai.OpenAIError, TimeoutError) as error:
            raise EndpointTroubleError(_line(error) or type(error).__name__) from error
        except ValueError as error:  # a body that is not the JSON it says it is
            raise EndpointTroubleError(f"the endpoint's body is no JSON: {error}") from error


def _body(request: Request, guided: bool, limit: str) -> dict[str, Any]:
    settings = request.settings
    body: dict[str, Any] = {
        "model": settings.model,
        "messages": list(request.messages),
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        limit: settings.max_answer_tokens,
    }
    if guided:
        schema = {"name": request.name, "schema": request.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return {**body, **json.loads(settings.extra_body or "{}")}


def _read(answer: Any, request: Request) -> Reply:
    """What a reply needs, taken with care: the client does not validate what endpoints send."""
    try:
        choice = answer.choices[0]
        text, finish = choice.message.content or "", choice.finish_reason or "stop"
    except (AttributeError, IndexError, TypeError):
        text = finish = None
    if not isinstance(text, str) or not isinstance(finish, str):
        raise EndpointTroubleError(f"the endpoint's body is no chat completion: {answer!r:.100}")
    text = text.encode(errors="replace").decode()  # halves of surrogate pairs
    usage = getattr(answer, "usage", None)
    asked, answered = (
        getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")
    )
    return Reply(
        text,
        finish,
        asked if isinstance(asked, int) else request.estimated_tokens,
        answered if isinstance(answered, int) else estimate(text),
    )


def _about_format(error: openai.APIStatusError) -> bool:
    said = str(error).lower()
    return any(word in said for word in ("response_format", "schema", "grammar", "guided"))


def _line(error: BaseException) -> str:
    """An error in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]
