"""What a small pool costs: the same requests with an ample pool, then with a quarter of it."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Iterator
from typing import Any

from load import MAX_TOKENS, Load, Plan, Prompt, draw_prompts
from machine import describe
from rich.console import Console
from soak_watch import counter
from transformers import AutoTokenizer

from server import Server

NO_CHECKS = {
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "0",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "0",
    "SGLANG_CHECK_KV_PAGE_INVARIANTS": "0",
}
AMPLE = 65536


def throughput(args: argparse.Namespace, console: Console) -> tuple[dict[str, Any], list[str]]:
    """The same requests with a pool that is ample, then with a quarter of what they held."""
    machine = describe()
    tokenizer = AutoTokenizer.from_pretrained(args.model_path)
    prompts = draw_prompts(tokenizer, args.requests, args.seed)
    ample = measure(args, prompts, AMPLE)
    console.print(json.dumps(ample), soft_wrap=True, highlight=False)
    longest = max(len(prompt.ids) for prompt in prompts) + MAX_TOKENS
    small = measure(args, prompts, max(ample["peak_used_tokens"] // 4, longest))
    console.print(json.dumps(small), soft_wrap=True, highlight=False)
    report = {
        "command": args.command,
        "machine": machine,
        "clients": args.clients,
        "requests": args.requests,
        "ample": ample,
        "small": small,
        "small_pool_of_demand": round(small["pool"] / ample["peak_used_tokens"], 3),
        "throughput_ratio": round(small["tokens_per_second"] / ample["tokens_per_second"], 3),
    }
    return report, [*ample.pop("errors"), *small.pop("errors")]


def measure(args: argparse.Namespace, prompts: list[Prompt], pool: int) -> dict[str, Any]:
    plans = [
        Plan(k, {"temperature": 0, "max_new_tokens": MAX_TOKENS}, False, "wait", 0)
        for k in range(len(prompts))
    ]
    random.Random(args.seed).shuffle(plans)
    with Server(model=args.model_path, pool=pool, **NO_CHECKS) as server:
        load = Load(server.url, prompts, args.deadline, args.seed)
        seconds, peak = asyncio.run(work_off(load, plans, args.clients))
        tally = load.tally
        return {
            "pool": pool,
            "seconds": round(seconds, 2),
            "tokens": tally.tokens,
            "tokens_per_second": round(tally.tokens / seconds, 1),
            "peak_used_tokens": peak,
            "retractions": counter(server, "sglang:multiverse_retractions_total"),
            "completed": tally.fates["completed"],
            "errors": tally.errors + tally.hangs,
        }


async def work_off(load: Load, plans: list[Plan], clients: int) -> tuple[float, int]:
    """Each client takes the next plan until none is left; the peak is that of held tokens."""
    left: Iterator[Plan] = iter(plans)
    peak = 0

    async def client() -> None:
        for plan in left:
            await load.ask(plan)

    async def watch() -> None:
        nonlocal peak
        while True:
            answer = await load.http.get("/v1/loads")
            peak = max(peak, answer.json()["loads"][0]["num_used_tokens"])
            await asyncio.sleep(0.3)

    async with load.http:
        watching = asyncio.create_task(watch())
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
        seconds = time.perf_counter() - start
        watching.cancel()
        await asyncio.wait([watching])
    return seconds, peak
