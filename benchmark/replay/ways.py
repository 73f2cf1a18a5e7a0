"""Four ways to get one answer: in parallel, one branch at a time, as plain text, by the client.

Each yields the same tokens. The first two ask a server that forks; the others ask SGLang as it is,
on which a plain answer is one sequence, and a client forks and joins by itself: the plan is one
request, each branch another, and what follows the branches is asked for with all of them in the
prompt, of which the server has the first branch's KV and computes that of the others again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
from answers import Answer, Writer

from sglang_multiverse.structure import Block

PARALLEL, ONE_BY_ONE, PLAIN, CLIENT = "parallel", "one-by-one", "plain", "client"
SIDE_BY_SIDE = (PARALLEL, CLIENT)  # the ways in which the branches of an answer run at a time


class Reply(NamedTuple):
    """An answer that came.

    Attributes:
        seconds: from when it was asked for until all of it was there.
        first: seconds until its first token, by the server's own clock.
        wrong: tokens were other ones.
        summary: the server's, of an answer that forked.
    """

    seconds: float
    first: float
    wrong: bool
    summary: dict[str, Any]


class AskError(RuntimeError):
    """A server refused, or failed."""


@dataclass
class Asker:
    """Asks one server, in whatever way.

    Attributes:
        requests: how many were sent.
    """

    http: aiohttp.ClientSession
    url: str
    writer: Writer
    ordinary: Sequence[int] = field(init=False)
    requests: int = 0

    def __post_init__(self) -> None:
        tags = self.writer.tags.role_of
        self.ordinary = [token for token in range(20, 200) if token not in tags]

    def prompt(self, answer: Answer, seed: int) -> list[int]:
        """Tokens that are no tags, other ones for each seed: answers share nothing."""
        ids = self.writer.plain(answer.prompt)
        base = len(self.ordinary)
        for i in range(min(answer.prompt, 8)):
            ids[i] = self.ordinary[(seed // base**i) % base]
        return ids

    async def ask(self, way: str, answer: Answer, seed: int) -> Reply:
        return await _WAYS[way](self, answer, self.prompt(answer, seed))

    async def generate(
        self, prompt: list[int], answer: Answer, lo: int, hi: int, **more: Any
    ) -> dict[str, Any]:
        """`answer.ids[lo:hi]` from one request; raises `AskError` if it is refused."""
        params = {
            "temperature": 0,
            "ignore_eos": True,
            "max_new_tokens": hi - lo,
            "custom_params": {"replay": {"script": answer.name, "at": lo}},
        }
        self.requests += 1
        body = {"input_ids": prompt, "sampling_params": params, **more}
        async with self.http.post(f"{self.url}/generate", json=body) as reply:
            if reply.status != 200:
                raise AskError(f"{reply.status}: {(await reply.text())[:500]}")
            said: dict[str, Any] = await reply.json()
        said["wrong"] = said["output_ids"] != answer.ids[lo:hi]
        return said


async def _whole(asker: Asker, answer: Answer, prompt: list[int], **more: Any) -> Reply:
    began = time.perf_counter()
    said = await asker.generate(prompt, answer, 0, len(answer.ids), **more)
    info = said["meta_info"]
    seconds = time.perf_counter() - began
    first = info.get("first_token_latency", seconds)
    return Reply(seconds, first, said["wrong"], info.get("multiverse") or {})


async def _one_by_one(asker: Asker, answer: Answer, prompt: list[int]) -> Reply:
    return await _whole(asker, answer, prompt, multiverse={"max_parallel_branches": 1})


async def _by_client(asker: Asker, answer: Answer, prompt: list[int]) -> Reply:
    """Fork and join at the client."""
    said: list[dict[str, Any]] = []
    header = asker.writer.conclusion_header

    async def piece(context: list[int], lo: int, hi: int) -> None:
        said.append(await asker.generate(context, answer, lo, hi))

    async def sequence(
        context: list[int], start: int, hi: int, blocks: Sequence[Block], label: str
    ) -> None:
        """`ids[start:hi)`, of which the headers are sent; `context` is what `start` sees."""
        at = start
        for block in blocks:
            await piece([*context, *answer.ids[start:at]], at, block.goal_end)
            seen = [*context, *answer.ids[start : block.goal_end]]
            branches = []
            for number, branch in enumerate(block.branches, 1):
                own = f"{label}.{number}".lstrip(".")
                lo, end = branch.span
                own_header = asker.writer.header(own)
                prefix = [*seen, *own_header]
                begin = lo + len(own_header)
                branches.append(sequence(prefix, begin, end, branch.blocks, own))
            await asyncio.gather(*branches)
            at = block.branches[-1].span.hi + len(header)
        if at < hi:
            await piece([*context, *answer.ids[start:at]], at, hi)

    began = time.perf_counter()
    await sequence(prompt, 0, len(answer.ids), answer.blocks, "")
    seconds = time.perf_counter() - began
    first = said[0]["meta_info"].get("first_token_latency", seconds)
    return Reply(seconds, first, any(one["wrong"] for one in said), {})


_WAYS: dict[str, Callable[[Asker, Answer, list[int]], Awaitable[Reply]]] = {
    PARALLEL: _whole,
    ONE_BY_ONE: _one_by_one,
    PLAIN: _whole,
    CLIENT: _by_client,
}
WAYS = tuple(_WAYS)


def is_stock(way: str) -> bool:
    """Whether it asks SGLang as it is."""
    return way in (PLAIN, CLIENT)
