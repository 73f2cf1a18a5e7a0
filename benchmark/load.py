"""Many clients at once that ask with a priority, wait, leave in mid-answer, and abort."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

from models import problems

MAX_TOKENS = 700
# Shares of the requests; the rest waits for its answer.
LEAVE, ABORT = 0.12, 0.06
# Shares of those that differ from a plain greedy request.
SAMPLED, SHORT, NARROW = 0.05, 0.05, 0.1
LATE = 10.0  # seconds after a client has left in which its request may yet be aborted
# Share of the requests whose id begins with that of another: who aborts it aborts both.
NAMESAKE = 0.3
PRIORITIES = 10


class Prompt(NamedTuple):
    ids: tuple[int, ...]
    kind: str
    cut: bool  # holds a part of the answer
    rest: tuple[int, ...]  # the answer that the model was trained to give


class Answer(NamedTuple):
    """A greedy answer that came to its end."""

    prompt: int
    ids: tuple[int, ...]
    finish: str
    summary: dict[str, Any]  # what the server says of its structure
    narrow: bool  # waves were asked for


@dataclass
class Tally:
    """What happened so far. `errors` and `hangs` must stay empty."""

    sent: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    priorities: Counter[int] = field(default_factory=Counter)
    aborts: Counter[str] = field(default_factory=Counter)  # sent: of one, of namesakes, of all
    answers: list[Answer] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    tokens: int = 0
    retractions: int = 0  # as the answers count them
    slowest: float = 0.0

    @property
    def open(self) -> int:
        return self.sent - sum(self.fates.values())


def draw_prompts(tokenizer: Any, count: int, seed: int) -> list[Prompt]:
    """Every kind of problem in turn; two of five come with a part of their answer."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        kind = problems.KINDS[number % len(problems.KINDS)]
        problem = problems.generate(rng.randrange(10**6), "held-out", kind)
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": problem.prompt}],
            tokenize=False,
            add_generation_prompt=True,
        )
        ids = tokenizer.encode(text, add_special_tokens=False)
        solution = tokenizer.encode(problem.solution, add_special_tokens=False)
        cut = rng.randrange(1, len(solution)) if rng.random() < 0.4 else 0
        found.append(Prompt((*ids, *solution[:cut]), kind, cut > 0, tuple(solution[cut:])))
    return found


class Plan(NamedTuple):
    """What one client does with one prompt."""

    prompt: int
    params: dict[str, Any]
    stream: bool
    end: str  # wait, leave, abort
    after: float  # seconds, or chunks for a client that leaves a stream
    priority: int = 0
    namesake: bool = False

    @property
    def greedy(self) -> bool:
        return self.params["temperature"] == 0

    @property
    def narrow(self) -> bool:
        return "custom_params" in self.params


def draw_plan(rng: random.Random, prompts: int) -> Plan:
    params: dict[str, Any] = {"temperature": 0, "max_new_tokens": MAX_TOKENS}
    if rng.random() < SAMPLED:
        params.update(temperature=0.8, sampling_seed=rng.randrange(2**31))
    if rng.random() < SHORT:
        params["max_new_tokens"] = rng.randint(1, 250)
    if rng.random() < NARROW:
        params["custom_params"] = {"multiverse": {"max_parallel_branches": rng.randint(1, 3)}}
    end = rng.choices(("wait", "leave", "abort"), (1 - LEAVE - ABORT, LEAVE, ABORT))[0]
    stream = rng.random() < (0.7 if end == "leave" else 0.4)
    after = rng.randrange(150) if end == "leave" and stream else rng.uniform(0, 40)
    priority, namesake = rng.randrange(PRIORITIES), rng.random() < NAMESAKE
    return Plan(rng.randrange(prompts), params, stream, end, after, priority, namesake)


class Load:
    """Clients of one server; `run` returns when the last one has its answer."""

    def __init__(self, url: str, prompts: list[Prompt], deadline: float, seed: int) -> None:
        self.prompts, self.deadline = prompts, deadline
        self.rng = random.Random(seed)
        self.tally = Tally()
        self.open: list[str] = []  # rids
        self.aborted: list[tuple[float, str]] = []  # until when, and what the rids begin with
        self.http = httpx.AsyncClient(
            base_url=url,
            timeout=None,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def run(self, clients: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        async with self.http, asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._client(end))

    async def _client(self, end: float) -> None:
        await asyncio.sleep(self.rng.uniform(0, 2))
        # A server that is gone would be asked in vain, thousands of times.
        while time.monotonic() < end and len(self.tally.errors) < 20:
            await self.ask(draw_plan(self.rng, len(self.prompts)))

    async def ask(self, plan: Plan) -> None:
        tally = self.tally
        rid = f"{self.rng.getrandbits(128):032x}"
        if plan.namesake and self.open:
            rid = f"{self.rng.choice(self.open)}-{rid}"
        tally.sent += 1
        tally.kinds[self._kind(plan)] += 1
        tally.priorities[plan.priority] += 1
        self.open.append(rid)
        start = time.monotonic()
        try:
            async with asyncio.timeout(self.deadline):
                fate, found = await self._play(plan, rid)
        except TimeoutError:
            fate, found = "hung", None
            tally.hangs.append(f"{self._kind(plan)}, {plan.end}: prompt {plan.prompt}")
        except (httpx.HTTPError, ValueError, KeyError) as error:
            fate, found = "failed", None
            tally.errors.append(f"{self._kind(plan)}, {plan.end}: {error!r:.300}")
        self.open.remove(rid)
        if fate == "disconnected":
            # The server aborts by the id, which may be the beginning of others: of some, too, that
            # come after this one has left, because SGLang waits two seconds before it does.
            self.aborted.append((time.monotonic() + LATE, rid))
        tally.fates[fate] += 1
        tally.slowest = max(tally.slowest, time.monotonic() - start)
        if found is not None:
            self._keep(plan, found)

    def _kind(self, plan: Plan) -> str:
        prompt = self.prompts[plan.prompt]
        return f"{prompt.kind}, cut" if prompt.cut else prompt.kind

    def _keep(self, plan: Plan, found: dict[str, Any]) -> None:
        tally, meta = self.tally, found["meta_info"]
        tally.tokens += meta["completion_tokens"]
        tally.retractions += meta.get("num_retractions") or 0
        if len(found["output_ids"]) != meta["completion_tokens"]:
            tally.errors.append(f"{len(found['output_ids'])} ids of {meta['completion_tokens']}")
        if plan.greedy:
            ids, finish = tuple(found["output_ids"]), meta["finish_reason"]["type"]
            summary = meta["multiverse"]
            tally.answers.append(Answer(plan.prompt, ids, finish, summary, plan.narrow))

    async def _play(self, plan: Plan, rid: str) -> tuple[str, dict[str, Any] | None]:
        """One request to its end: what became of it, and its answer if it got one."""
        body = {
            "rid": rid,
            "input_ids": list(self.prompts[plan.prompt].ids),
            "sampling_params": plan.params,
            "stream": plan.stream,
            "priority": plan.priority,
        }
        start = time.monotonic()
        aborting = None
        if plan.end == "abort":
            aborting = asyncio.create_task(self._abort(rid, plan.after))
        try:
            if plan.end == "leave" and not plan.stream:
                try:
                    async with asyncio.timeout(plan.after):
                        found = await self._whole(body)
                except TimeoutError:
                    return "disconnected", None
            elif plan.stream:
                chunks = int(plan.after) if plan.end == "leave" else None
                found = await self._streamed(body, chunks)
                if found is None:
                    return "disconnected", None
            else:
                found = await self._whole(body)
        finally:
            if aborting is not None and not aborting.cancel():
                aborting.result()  # raises what it raised
        return self._judge(rid, start, found)

    def _judge(
        self, rid: str, start: float, found: dict[str, Any]
    ) -> tuple[str, dict[str, Any] | None]:
        reason = found.get("meta_info", {}).get("finish_reason") or {}
        if "error" in found or reason.get("type") not in ("stop", "length"):
            if any(at >= start and rid.startswith(prefix) for at, prefix in self.aborted):
                return "aborted", None
            raise ValueError(json.dumps(found.get("error", reason)))
        return "completed", found

    async def _whole(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = await self.http.post("/generate", json=body)
        found: dict[str, Any] = answer.json()
        return found if answer.is_success else {"error": found}

    async def _streamed(self, body: dict[str, Any], chunks: int | None) -> dict[str, Any] | None:
        """The last chunk, which holds the whole answer; `None` if the client left before."""
        last, seen = "", 0
        async with self.http.stream("POST", "/generate", json=body) as answer:
            async for line in answer.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                if chunks is not None and seen >= chunks:
                    return None
                last, seen = line, seen + 1
        found: dict[str, Any] = json.loads(last.removeprefix("data: "))
        return found

    async def _abort(self, rid: str, after: float) -> None:
        await asyncio.sleep(after)
        more = any(other != rid and other.startswith(rid) for other in self.open)
        await self._send_abort(rid, "namesakes" if more else "one", {"rid": rid})

    async def abort_all(self) -> None:
        await self._send_abort("", "all", {"abort_all": True})

    async def _send_abort(self, prefix: str, kind: str, body: dict[str, Any]) -> None:
        self.tally.aborts[kind] += 1
        self.aborted.append((time.monotonic(), prefix))
        (await self.http.post("/abort_request", json=body)).raise_for_status()
        self.aborted.append((time.monotonic(), prefix))  # it may have met what came meanwhile
