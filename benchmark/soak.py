"""Hours under pressure: nothing lost, nothing wrong, nothing left waiting.

    python benchmark/soak.py --minutes 15

One server whose KV pool is far too small for its clients, with SGLang's pool
checks after every step. Clients ask, wait, leave in mid-answer, and abort.
Afterwards every greedy answer is held against the one that its prompt gets
alone. Exit code 1 on any violation.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "test")]

from load import MAX_TOKENS, Answer, Load, Plan, Prompt, draw_prompts  # noqa: E402
from machine import describe  # noqa: E402

import oracle  # noqa: E402
from server import MODEL, Server  # noqa: E402
from sglang_multiverse.structure import Limits, parse, resolve_tags, walk  # noqa: E402

TIE = 1e-3
# Admission so reckless that running rows must give way.
RECKLESS = ("--schedule-conservativeness", "0.05")
NO_CHECKS = {
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "0",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "0",
    "SGLANG_CHECK_KV_PAGE_INVARIANTS": "0",
}
SIGNS = ("Traceback", "pool memory leak", "leak detected", "Internal error")
AMPLE = 65536


class Watch:
    """A line now and then, and the size of the scheduler process."""

    def __init__(self, server: Server, load: Load, console: Console) -> None:
        self.server, self.load, self.console = server, load, console
        self.start = time.monotonic()
        self.rss: list[int] = []
        self.peak_used = 0

    async def run(self, every: float) -> None:
        process = scheduler_process(self.server)
        live = self.console.is_terminal
        shown = 0.0
        with self.console.status("starting") if live else contextlib.nullcontext() as status:
            while True:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.rss.append(process.memory_info().rss)
                if status is not None:
                    status.update(self.line())
                elif time.monotonic() - shown >= every:
                    shown = time.monotonic()
                    self.console.print(self.line(), soft_wrap=True, highlight=False)
                await asyncio.sleep(2)

    def line(self) -> str:
        tally, fates = self.load.tally, self.load.tally.fates
        return (
            f"{time.monotonic() - self.start:5.0f} s  sent {tally.sent}  open {tally.open}  "
            f"completed {fates['completed']}  disconnected {fates['disconnected']}  "
            f"aborted {fates['aborted']}  tokens {tally.tokens}  "
            f"retractions {tally.retractions}  errors {len(tally.errors)}  "
            f"hangs {len(tally.hangs)}  rss {self.rss[-1] / 2**20 if self.rss else 0:.0f} MiB"
        )

    def memory(self, tolerance: float) -> dict[str, Any]:
        """Medians of the first and the last quarter, and whether they are as good as equal."""
        quarter = max(len(self.rss) // 4, 1)
        first, last = (
            statistics.median(part) / 2**20 for part in (self.rss[:quarter], self.rss[-quarter:])
        )
        return {
            "first_quarter_mib": round(first, 1),
            "last_quarter_mib": round(last, 1),
            "tolerance_mib": tolerance,
            "samples": len(self.rss),
            "flat": last - first <= tolerance,
        }


def scheduler_process(server: Server) -> psutil.Process:
    assert server.process is not None
    children = psutil.Process(server.process.pid).children(recursive=True)
    for child in children:
        if "scheduler" in " ".join([child.name(), *child.cmdline()]):
            return child
    return max(children, key=lambda child: child.memory_info().rss)


def load_of(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.http.get("/v1/loads").json()["loads"][0]
    return found


def idle_load(server: Server, seconds: float) -> dict[str, Any]:
    """The load report once nothing runs or waits, or the last one in that time."""
    end = time.monotonic() + seconds
    while True:
        load = load_of(server)
        busy = load["num_running_reqs"] + load["num_waiting_reqs"] + load["num_used_tokens"]
        if not busy or time.monotonic() > end:
            return load
        time.sleep(0.5)


def counter(server: Server, name: str) -> int:
    text = server.http.get("/metrics").text
    found = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", text, re.MULTILINE)
    return int(sum(map(float, found)))


class Judge:
    """Holds answers against those that the same prompts get alone, on the same server."""

    def __init__(self, model_path: Path) -> None:
        # Before the load: whoever trains the model anew meanwhile must not be the judge.
        self.tokenizer = AutoTokenizer.from_pretrained(model_path)
        self.model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
        self.tags = resolve_tags(self.tokenizer)
        ends = self.model.generation_config.eos_token_id
        self.eos = {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}

    def compare(
        self, server: Server, prompts: Sequence[Prompt], answers: Sequence[Answer]
    ) -> tuple[Counter[str], list[dict[str, Any]]]:
        """What was counted, and each answer that differs where there was no tie."""
        counts: Counter[str] = Counter()
        wrong: list[dict[str, Any]] = []
        solos: dict[int, tuple[list[int], str]] = {}
        for answer in answers:
            ids = list(prompts[answer.prompt].ids)
            if answer.prompt not in solos:
                server.flush()
                found = server.generate(ids, sampling_params={"max_new_tokens": MAX_TOKENS})
                finish = found["meta_info"]["finish_reason"]["type"]
                solos[answer.prompt] = (found["output_ids"], finish)
            solo, finish = solos[answer.prompt]
            if self._cut_in_fork(ids, answer.ids, answer.finish) or self._cut_in_fork(
                ids, solo, finish
            ):
                counts["not_compared"] += 1
                continue
            counts["compared"] += 1
            at = first_difference(answer, solo)
            if at is None:
                continue
            if at < len(solo) and self._gap(ids, solo, at) < TIE:
                counts["ties"] += 1
                continue
            counts["mismatches"] += 1
            wrong.append(
                {
                    "prompt": ids,
                    "at": at,
                    "gap": round(self._gap(ids, solo, at), 6) if at < len(solo) else None,
                    "answer": list(answer.ids),
                    "alone": solo,
                }
            )
        counts["alone"] = len(solos)
        return counts, wrong

    def waves(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> Counter[str]:
        """Answers with a block whose branches never all ran at once, by who wanted that."""
        counts: Counter[str] = Counter()
        for answer in answers:
            prompt = prompts[answer.prompt].ids
            blocks = walk(parse([*prompt, *answer.ids], self.tags).blocks)
            widest = max(
                (len(b.branches) for b in blocks if (b.goal_end or 0) > len(prompt)), default=0
            )
            if answer.summary["max_concurrent_branches"] < widest:
                counts["asked_for" if answer.narrow else "under_pressure"] += 1
        return counts

    def _cut_in_fork(self, prompt: list[int], answer: Sequence[int], finish: str) -> bool:
        """Where a budget cuts depends on which branch was ahead."""
        return finish == "length" and bool(parse([*prompt, *answer], self.tags).open_blocks)

    def _gap(self, prompt: list[int], solo: list[int], at: int) -> float:
        whole = [*prompt, *solo]
        scores = oracle.score(self.model, whole, self.tags, len(prompt), Limits(), self.eos)
        return float(scores.gap[at])


def first_difference(answer: Answer, solo: Sequence[int]) -> int | None:
    """Where the two part. One cut by its budget is to be a beginning of the other."""
    for k, (one, other) in enumerate(zip(answer.ids, solo, strict=False)):
        if one != other:
            return k
    if len(answer.ids) == len(solo) or (answer.finish == "length" and len(answer.ids) < len(solo)):
        return None
    return min(len(answer.ids), len(solo))


def soak(args: argparse.Namespace, console: Console) -> tuple[dict[str, Any], list[str]]:
    machine = describe()
    judge = Judge(args.model_path)
    prompts = draw_prompts(judge.tokenizer, args.prompts, args.seed)
    with Server(*RECKLESS, model=args.model_path, pool=args.pool) as server:
        load = Load(server.url, prompts, args.deadline, args.seed)
        watch = Watch(server, load, console)
        seconds = asyncio.run(attend(load, watch, args.clients, args.minutes * 60))
        console.print(watch.line(), soft_wrap=True, highlight=False)
        tally = load.tally
        report: dict[str, Any] = {
            "command": args.command,
            "machine": machine,
            "minutes": args.minutes,
            "seconds_until_all_was_answered": round(seconds, 1),
            "pool": args.pool,
            "clients": args.clients,
            "requests": {
                "sent": tally.sent,
                **{
                    fate: tally.fates[fate]
                    for fate in ("completed", "disconnected", "aborted", "failed", "hung")
                },
                "kinds": dict(sorted(tally.kinds.items())),
            },
            "generated_tokens": tally.tokens,
            "slowest_request_seconds": round(tally.slowest, 1),
            "waves": dict(judge.waves(prompts, tally.answers)),
            "rss": watch.memory(args.rss_tolerance),
        }
        try:
            report |= aftermath(server, args.pool)
            console.print("comparing with the answers alone")
            counts, wrong = judge.compare(server, prompts, tally.answers)
        except (httpx.HTTPError, KeyError) as error:
            report["server_failed"] = f"{error!r:.300}"
            counts, wrong = Counter(), []
        report["greedy_answers"] = {
            key: counts[key] for key in ("compared", "not_compared", "mismatches", "ties", "alone")
        }
        report["hangs"] = len(tally.hangs)
        signs = [sign for sign in SIGNS if sign in server.log]
        violations = find_violations(report, tally.errors, tally.hangs, signs, server.alive)
        if violations:
            args.log.write_text(server.log)
            args.wrong.write_text(json.dumps(wrong))
            console.print(f"log: {args.log}, mismatches: {args.wrong}")
    report["violations"] = violations
    return report, violations


async def attend(load: Load, watch: Watch, clients: int, seconds: float) -> float:
    watching = asyncio.create_task(watch.run(every=15))
    start = time.monotonic()
    try:
        await load.run(clients, seconds)
    finally:
        watching.cancel()
    return time.monotonic() - start


def aftermath(server: Server, pool: int) -> dict[str, Any]:
    """The pool and the counters, with nothing under way; the cache is flushed in between."""
    before = idle_load(server, 60)
    flushed = server.http.post("/flush_cache", params={"timeout": 30}).is_success
    after = load_of(server)
    return {
        "retractions": {
            "sglang:multiverse_retractions_total": counter(
                server, "sglang:multiverse_retractions_total"
            ),
            "sglang:num_retracted_requests_total": counter(
                server, "sglang:num_retracted_requests_total"
            ),
        },
        # Used = total - free - cached.
        "leaked_slots": {
            "before_flush": before["num_used_tokens"],
            "after_flush": after["num_used_tokens"],
            "total": after["max_total_num_tokens"],
            "pool_as_asked": after["max_total_num_tokens"] == pool,
        },
        "left_behind": before["num_running_reqs"] + before["num_waiting_reqs"],
        "flush_succeeded": flushed,
    }


def find_violations(
    report: dict[str, Any], errors: list[str], hangs: list[str], signs: list[str], alive: bool
) -> list[str]:
    leaked = report.get("leaked_slots", {"before_flush": -1, "after_flush": -1})
    checks = {
        "the server ended": not alive,
        report.get("server_failed", ""): "server_failed" in report,
        "slots leaked": leaked["before_flush"] != 0 or leaked["after_flush"] != 0,
        "requests were left behind": report.get("left_behind", 0) != 0,
        "the cache could not be flushed": not report.get("flush_succeeded", False),
        "answers differ from those alone": report["greedy_answers"]["mismatches"] > 0,
        "nothing was compared": report["greedy_answers"]["compared"] == 0,
        "memory grew": not report["rss"]["flat"],
        "the pool was never short, so the run proves nothing about pressure": not sum(
            report.get("retractions", {}).values()
        ),
    }
    return [
        *(text for text, broken in checks.items() if broken),
        *(f"in the log: {sign}" for sign in signs),
        *(f"hang: {hang}" for hang in hangs[:20]),
        *(f"error: {error}" for error in errors[:20]),
    ]


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


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--clients", type=int, default=128)
    parser.add_argument("--pool", type=int, default=1500, help="tokens (default: 1500)")
    parser.add_argument("--prompts", type=int, default=80, help="different ones (default: 80)")
    parser.add_argument(
        "--deadline", type=float, default=300, help="seconds; a later answer is a hang"
    )
    parser.add_argument(
        "--rss-tolerance", type=float, default=48, help="MiB that the scheduler may grow"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model-path", type=Path, default=MODEL)
    parser.add_argument(
        "--throughput", action="store_true", help="measure the price of a small pool instead"
    )
    parser.add_argument("--requests", type=int, default=256, help="of --throughput")
    parser.add_argument("--out", type=Path, help="default: results/soak.json beside this file")
    args = parser.parse_args(argv)
    name = "soak-throughput" if args.throughput else "soak"
    args.out = args.out or HERE / "results" / f"{name}.json"
    args.log, args.wrong = args.out.with_suffix(".log"), args.out.with_suffix(".wrong.json")
    shown = [Path(word).name if Path(word).is_absolute() else word for word in argv]
    args.command = " ".join(["python benchmark/soak.py", *shown])
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(sys.argv[1:] if argv is None else argv)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    console = Console()
    report, violations = (throughput if args.throughput else soak)(args, console)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    console.print_json(json.dumps(report))
    for violation in violations:
        console.print(f"VIOLATION: {violation}", markup=False, soft_wrap=True)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
