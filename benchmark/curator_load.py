"""How close the curator comes to the ideal time, and how much memory it takes.

    python benchmark/curator_load.py [--examples 1000] [--concurrency 64] [--latency 0.2]

A stand-in in a process of its own answers every call after `--latency` seconds. With n
examples of five calls and c at once, the ideal time is n / c, rounded up, times five
latencies. Timed is the whole command, from the first reading of the source to the last
written file, without the start of the interpreter. Before, as many bare calls by the same client
are timed, which says what the machine leaves of the ideal.

    python benchmark/curator_load.py --tokens ../shared/data/multiverse_traces.jsonl

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
from sglang_multiverse.curator.config import RunConfig, stage_settings
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
from sglang_multiverse.curator.endpoint import Endpoint
from sglang_multiverse.curator.prompt import messages
from sglang_multiverse.curator.request import Request, estimate
from sglang_multiverse.curator.schema import json_schema
from sglang_multiverse.curator.sentences import numbered, split
from sglang_multiverse.curator.stages import STAGES


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
        one.question.strip(): {s.name: json.dumps(one.answers(s.name)) for s in STAGES}
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


def bare(args: argparse.Namespace, ours: Connection) -> None:
    """As many calls by the same client and nothing else; sends seconds and processor seconds."""
    known = chains(1)[0]
    stage = STAGES[0]
    config = RunConfig(base_url=args.url, model="known", concurrency=args.concurrency)
    said = messages(stage.name, known.question, split(known.chain), [])
    settings = stage_settings(config)[stage.name]
    request = Request(stage.name, settings, said, json_schema(stage.schema))

    async def calls() -> None:
        endpoint = Endpoint(config, "none")
        left = iter(range(args.examples * len(STAGES)))

        async def work() -> None:
            for _ in left:
                await endpoint.ask(request)

        await asyncio.gather(*(work() for _ in range(args.concurrency)))
        await endpoint.close()

    began, used = time.perf_counter(), time.process_time()
    asyncio.run(calls())
    ours.send((time.perf_counter() - began, time.process_time() - used))


def in_child(context: Any, work: Any, args: argparse.Namespace) -> Any:
    """What `work` sends from a fresh process."""
    result, child = context.Pipe()
    process = context.Process(target=work, args=(args, child))
    process.start()
    found = result.recv()
    process.join()
    return found


def throughput(args: argparse.Namespace) -> int:
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe()
    server = context.Process(target=serve, args=(args.latency, ours), daemon=True)
    server.start()
    args.url = theirs.recv()
    ideal = math.ceil(args.examples / args.concurrency) * len(STAGES) * args.latency
    print(json.dumps(describe()))
    seconds, processor = in_child(context, bare, args)
    print(f"bare calls: {seconds:.2f} s, {processor:.2f} s of processor")
    runs = []
    # The first run is short, to see what memory takes that does not depend on the number.
    for count in [max(args.examples // 10, 1)] + [args.examples] * args.repeats:
        given = argparse.Namespace(**{**vars(args), "examples": count})
        code, seconds, processor, peak = in_child(context, timed, given)
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
    """What good answers take, and what the dry run expects, for the chains of a file."""
    known = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["balanced"]:
            thinking = row["output"].partition("</Think>")[0].replace("<Think>", "")
            known.append(Known(row["user"], take_apart(thinking)))
    lengths = [estimate(numbered(split(one.chain))) for one in known]
    print(
        f"{len(known)} chains, numbered: {min(lengths)} to {max(lengths)} tokens, "
        f"mean {statistics.mean(lengths):.0f}"
    )
    for stage in STAGES:
        found = [estimate(json.dumps(one.answers(stage.name), ensure_ascii=False)) for one in known]
        print(f"{stage.name:>8}: good answers of {statistics.mean(found):.0f} tokens in the mean")
    with tempfile.TemporaryDirectory() as folder:
        write_source(known, source := Path(folder) / "source.jsonl")
        curate(["run", str(source), "--out", folder, "--dry-run", "--model", "any", "--no-plots"])


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
