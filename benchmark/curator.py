"""How close the curator comes to the ideal time, and how much memory it takes.

    python benchmark/curator.py [--examples 1000] [--concurrency 64] [--latency 0.2]

A stand-in in a process of its own answers every call after `--latency` seconds. With n
examples of five calls and c at once, the ideal time is n / c, rounded up, times five
latencies. Timed is the whole command, from the first reading of the source to the last
written file, without the start of the interpreter.

    python benchmark/curator.py --tokens ../shared/data/multiverse_traces.jsonl

prints instead what the five stages take, in tokens by the rule of thumb of 3.5 characters,
for the chains in a file of real Multiverse texts, with good answers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import io
import json
import math
import multiprocessing
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from machine import describe

from sglang_multiverse.curator.__main__ import main as curate
from sglang_multiverse.curator.demo import (
    Known,
    Response,
    Server,
    bundled,
    completion,
    question_of,
    stage_of,
    take_apart,
    write_source,
)
from sglang_multiverse.curator.request import estimate
from sglang_multiverse.curator.sentences import numbered, split

STAGES = ("outline", "graph", "refill", "plan", "rewrite")


def chains(count: int) -> list[Known]:
    """The bundled chains with groups, as many as asked for; each has a question of its own."""
    some = [one for one in bundled() if any(part.paths for part in one.parts)]
    return [
        dataclasses.replace(some[i % len(some)], question=f"{some[i % len(some)].question} ({i})")
        for i in range(count)
    ]


def serve(latency: float, ready: Connection) -> None:
    """The stand-in, until the other end closes."""
    answers = {
        one.question.strip(): {stage: json.dumps(one.answers(stage)) for stage in STAGES}
        for one in bundled()
    }

    async def respond(request: dict[str, Any]) -> Response:
        question = question_of(request).rpartition(" (")[0]
        response = completion(answers[question][stage_of(request)], request)
        await asyncio.sleep(latency)
        return response

    with Server(respond) as server:
        ready.send(server.url)
        with contextlib.suppress(EOFError):
            ready.recv()


def peak_memory() -> float:
    """Of this process, in MiB; getrusage would also know the one that it was forked from."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def timed(args: argparse.Namespace, ours: Connection) -> None:
    """Run the command; sends seconds, processor seconds, and the peak of memory in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        write_source(chains(args.examples), source := Path(folder) / "source.jsonl")
        command = ["run", str(source), "--out", str(Path(folder) / "out"), "--no-plots"]
        command += ["--base-url", args.url, "--concurrency", str(args.concurrency)]
        began, used = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = curate(command)
        seconds, processor = time.perf_counter() - began, time.process_time() - used
        peak = peak_memory()
    ours.send((code, seconds, processor, peak))


def throughput(args: argparse.Namespace) -> int:
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe()
    server = context.Process(target=serve, args=(args.latency, ours), daemon=True)
    server.start()
    args.url = theirs.recv()
    ideal = math.ceil(args.examples / args.concurrency) * len(STAGES) * args.latency
    print(json.dumps(describe()))
    runs = []
    # The first run is short, to see what memory takes that does not depend on the number.
    for count in [max(args.examples // 10, 1)] + [args.examples] * args.repeats:
        given = argparse.Namespace(**{**vars(args), "examples": count})
        result, child = context.Pipe()
        run = context.Process(target=timed, args=(given, child))
        run.start()
        code, seconds, processor, peak = result.recv()
        run.join()
        print(
            f"{count} examples: exit code {code}, {seconds:.2f} s, "
            f"{processor:.2f} s of processor, peak memory {peak:.0f} MiB"
        )
        runs.append((seconds, code))
    theirs.close()
    server.join()
    middle = statistics.median(seconds for seconds, _ in runs[1:])
    print(f"ideal {ideal:.2f} s; median {middle:.2f} s, {middle / ideal:.3f} times the ideal")
    return max(code for _, code in runs)


def tokens(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    per_stage: dict[str, list[float]] = {stage: [] for stage in STAGES}
    lengths = []
    for row in rows:
        if not row["balanced"]:
            continue
        thinking = row["output"].partition("</Think>")[0].replace("<Think>", "")
        known = Known(row["user"], take_apart(thinking))
        shown = estimate(numbered(split(known.chain)))
        lengths.append(shown)
        for stage in STAGES:
            answer = estimate(json.dumps(known.answers(stage), ensure_ascii=False))
            per_stage[stage].append(answer)
    print(
        f"{len(lengths)} chains, numbered: {min(lengths)} to {max(lengths)} tokens, "
        f"mean {statistics.mean(lengths):.0f}"
    )
    for stage, found in per_stage.items():
        shares = [n / length for n, length in zip(found, lengths, strict=True)]
        print(
            f"{stage:>8}: answers of {min(found):.0f} to {max(found):.0f} tokens, mean "
            f"{statistics.mean(found):.0f}; at most {max(shares):.3f} of the chain"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=Path, help="a file of Multiverse texts")
    args = parser.parse_args()
    if args.tokens:
        tokens(args.tokens)
        return 0
    return throughput(args)


if __name__ == "__main__":
    sys.exit(main())
