"""Load: a number of clients that each ask again at once, or arrivals at a given rate."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import aiohttp
from answers import Answer
from ways import Asker, Reply

ATTEMPT_SECONDS = 600


class Asked(NamedTuple):
    answer: Answer
    reply: Reply


@dataclass(frozen=True)
class Load:
    """What became of a load.

    Attributes:
        seconds: from the first question to the last answer.
        metered: how far the server's counters went up meanwhile, and its peaks.
        requests: sent to the server.
    """

    asked: list[Asked]
    seconds: float
    metered: dict[str, float]
    requests: int


_LINE = re.compile(r"meter:(\w+?)(?:_total)?(?:\{(.*)\})? (\S+)$")


def read_meter(text: str) -> dict[str, float]:
    """The meter's values on `/metrics`: `"forwards decode"`, `"rows_held"` …"""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if match := _LINE.match(line):
            kind = re.search(r'kind="(\w+)"', match[2] or "")
            name = f"{match[1]} {kind[1]}" if kind else match[1]
            found[name] = found.get(name, 0.0) + float(match[3])
    return found


PEAKS = ("rows_held", "slots_held")


async def under_load(asker: Asker, load: Callable[[], Awaitable[list[Asked]]]) -> Load:
    """From an empty cache; raises `aiohttp.ClientError` if the server cannot be reached."""

    async def metrics() -> dict[str, float]:
        async with asker.http.get(f"{asker.url}/metrics") as reply:
            reply.raise_for_status()
            return read_meter(await reply.text())

    flush = f"{asker.url}/flush_cache"
    async with asker.http.post(flush, params={"timeout": 30}) as reply:
        reply.raise_for_status()  # waits until it is idle
    before, asker.requests = await metrics(), 0
    began = time.perf_counter()
    asked = await load()
    seconds = time.perf_counter() - began
    after = await metrics()
    metered = {
        name: value if name in PEAKS else value - before.get(name, 0.0)
        for name, value in after.items()
    }
    return Load(asked, seconds, metered, asker.requests)


async def closed(
    asker: Asker, way: str, answers: Sequence[Answer], clients: int, each: int, seed: int
) -> Load:
    """`clients` that ask one question after the other, `each` times; `answers` in turn."""

    async def load() -> list[Asked]:
        numbers: Iterator[int] = iter(range(clients * each))
        found: list[Asked] = []

        async def client() -> None:
            for number in numbers:
                answer = answers[number % len(answers)]
                reply = await asker.ask(way, answer, seed + number)
                found.append(Asked(answer, reply))

        await asyncio.gather(*(client() for _ in range(clients)))
        return found

    return await under_load(asker, load)


def arrivals(rate: float, count: int, seed: int) -> list[float]:
    """Seconds after the begin, of a Poisson process."""
    drawn = random.Random(seed)
    at, found = 0.0, []
    for _ in range(count):
        found.append(at)
        at += drawn.expovariate(rate)
    return found


async def opened(
    asker: Asker, way: str, answers: Sequence[Answer], rate: float, count: int, seed: int
) -> Load:
    """`count` questions at `rate` a second, whether or not earlier ones are answered yet."""
    times = arrivals(rate, count, seed)

    async def load() -> list[Asked]:
        async def one(number: int) -> Asked:
            answer = answers[number % len(answers)]
            return Asked(answer, await asker.ask(way, answer, seed + number))

        tasks = []
        for number, (at, after) in enumerate(pairwise([*times, times[-1]])):
            tasks.append(asyncio.create_task(one(number)))
            await asyncio.sleep(max(after - at, 0.0))
        return list(await asyncio.gather(*tasks))

    return await under_load(asker, load)


def session() -> aiohttp.ClientSession:
    """For any number of requests at a time."""
    return aiohttp.ClientSession(
        # A server drops what it has not heard of for five seconds; it is not to be met doing so.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=1),
        timeout=aiohttp.ClientTimeout(total=ATTEMPT_SECONDS),
    )
