"""Hours under pressure: nothing lost, nothing wrong, nothing left waiting.

    python benchmark/soak.py --minutes 15 [--overlap]

One server with a sixth of the rows and of the KV slots that its clients want
(`--over-commitment`), and with SGLang's pool checks after every step. Clients
ask with different priorities, wait, leave in mid-answer, and abort; meanwhile the
server is paused, gets its weights anew, and drops all requests. Afterwards every
greedy answer is held against the one that its prompt gets alone. Exit code 1 on
any violation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "test")]

from load import Load, draw_prompts  # noqa: E402
from machine import describe  # noqa: E402
from soak_demand import demand  # noqa: E402
from soak_judge import Judge  # noqa: E402
from soak_operator import Operator  # noqa: E402
from soak_throughput import throughput  # noqa: E402
from soak_watch import Watch, aftermath, given_way, shortage  # noqa: E402

from server import MODEL, Server  # noqa: E402

OVERLAP_ENV = "SGLANG_MULTIVERSE_CPU_OVERLAP"
FLAGS = (
    # Admission so reckless that running rows must give way.
    *("--schedule-conservativeness", "0.05"),
    # Of ten priorities; SGLang's own threshold of 10 would never let one give way to another.
    *("--enable-priority-scheduling", "--priority-scheduling-preemption-threshold", "5"),
)
_BRANCHES = 32  # more than any prompt's answer has
SIGNS = ("Traceback", "pool memory leak", "leak detected", "Internal error")


def soak(args: argparse.Namespace, console: Console) -> tuple[dict[str, Any], list[str]]:
    machine = describe()
    judge = Judge(args.model_path)
    prompts = draw_prompts(judge.tokenizer, args.prompts, args.seed)
    wanted = demand(prompts, judge.tags, args.clients)
    rows = args.rows or round(wanted.rows / args.over_commitment)
    # Each closed branch may leave most of a page unused until its join.
    longest = wanted.longest + _BRANCHES * (args.page_size - 1)
    pool = args.pool or max(round(wanted.slots / args.over_commitment), longest)
    pool = -(-pool // args.page_size) * args.page_size
    with Server(
        *FLAGS,
        *("--page-size", str(args.page_size)),
        *("--max-running-requests", str(rows)),
        *args.server_flags.split(),
        model=args.model_path,
        pool=pool,
        **environment(args.overlap),
    ) as server:
        load = Load(server.url, prompts, args.deadline, args.seed)
        operator = Operator(load, args.model_path, args.seed)
        watch = Watch(server, load, operator, console)
        seconds = asyncio.run(attend(load, operator, watch, args.clients, args.minutes * 60))
        console.print(watch.line(), soft_wrap=True, highlight=False)
        tally = load.tally
        report: dict[str, Any] = {
            "command": args.command,
            "machine": machine,
            "minutes": args.minutes,
            "seconds_until_all_was_answered": round(seconds, 1),
            "overlap": args.overlap,
            "page_size": args.page_size,
            "clients": args.clients,
            "rows": rows,
            "pool": pool,
            "over_commitment": {
                "rows": round(wanted.rows / rows, 2),
                "slots": round(wanted.slots / pool, 2),
            },
            "requests": {
                "sent": tally.sent,
                **{
                    fate: tally.fates[fate]
                    for fate in ("completed", "disconnected", "aborted", "failed", "hung")
                },
                "kinds": dict(sorted(tally.kinds.items())),
                "priorities": dict(sorted(tally.priorities.items())),
            },
            "aborts_sent": dict(sorted(tally.aborts.items())),
            "pauses": dict(sorted(operator.pauses.items())),
            "weight_updates": operator.updates,
            "generated_tokens": tally.tokens,
            "slowest_request_seconds": round(tally.slowest, 1),
            "waves": dict(judge.waves(prompts, tally.answers)),
            "rss": watch.memory(args.rss_tolerance),
        }
        try:
            report |= {"shortage": shortage(server, rows, pool), **given_way(server)}
            report |= aftermath(server, pool)
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
        errors = tally.errors + operator.errors
        violations = find_violations(report, errors, tally.hangs, signs, server.alive)
        if violations:
            args.log.write_text(server.log)
            args.wrong.write_text(json.dumps(wrong))
            console.print(f"log: {args.log}, mismatches: {args.wrong}")
    report["violations"] = violations
    return report, violations


def environment(overlap: bool) -> dict[str, str]:
    """Of the server: the plugin `gauge`, by the entry point in its folder, and the event loop."""
    path = os.pathsep.join(filter(None, [str(HERE / "gauge"), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, OVERLAP_ENV: str(int(overlap))}


async def attend(
    load: Load, operator: Operator, watch: Watch, clients: int, seconds: float
) -> float:
    """Seconds until the last client had its answer."""
    watching = asyncio.create_task(watch.run(every=15))
    start = time.monotonic()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(clients, seconds))
            group.create_task(operator.run(seconds))
    finally:
        watching.cancel()
    return time.monotonic() - start


def find_violations(
    report: dict[str, Any], errors: list[str], hangs: list[str], signs: list[str], alive: bool
) -> list[str]:
    leaked = report.get("leaked_slots", {"before_flush": -1, "after_flush": -1})
    short = report.get("shortage", {})
    overlapped = short.get("overlapped_steps") == (short.get("steps") if report["overlap"] else 0)
    checks = {
        "the server ended": not alive,
        report.get("server_failed", ""): "server_failed" in report,
        "slots leaked": leaked["before_flush"] != 0 or leaked["after_flush"] != 0,
        "requests were left behind": report.get("left_behind", 0) != 0,
        "the cache could not be flushed": not report.get("flush_succeeded", False),
        "answers differ from those alone": report["greedy_answers"]["mismatches"] > 0,
        "nothing was compared": report["greedy_answers"]["compared"] == 0,
        "memory grew": not report["rss"]["flat"],
        "void: the other event loop ran": not overlapped,
        "void: rows were never short": not short.get("steps_short_of_rows"),
        "void: slots were never short": not short.get("steps_short_of_slots"),
        "void: nobody gave way under pressure": not report.get("retractions", {}).get("pressure"),
        "void: never paused": not report["pauses"],
        "void: no weights were updated": not report["weight_updates"],
        "void: nobody was preempted": not sum(report.get("preemptions", {}).values()),
    }
    return [
        *(text for text, broken in checks.items() if broken),
        *(f"in the log: {sign}" for sign in signs),
        *(f"hang: {hang}" for hang in hangs[:20]),
        *(f"error: {error}" for error in errors[:20]),
    ]


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--clients", type=int, default=128)
    parser.add_argument(
        "--over-commitment",
        type=float,
        default=6,
        help="rows and slots that clients want ÷ those that there are (default: 6)",
    )
    parser.add_argument("--rows", type=int, help="--max-running-requests, whatever is wanted")
    parser.add_argument("--pool", type=int, help="slots, whatever is wanted")
    parser.add_argument(
        "--overlap", action="store_true", help="SGLang's overlap event loop, also on a CPU"
    )
    parser.add_argument("--page-size", type=int, default=1)
    parser.add_argument(
        "--server-flags", default="", metavar="FLAGS", help="more of SGLang's, as one argument"
    )
    parser.add_argument("--prompts", type=int, default=80, help="different ones (default: 80)")
    parser.add_argument(
        "--deadline", type=float, default=600, help="seconds; a later answer is a hang"
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
    parser.add_argument("--out", type=Path, help="default: in results/, beside this file")
    args = parser.parse_args(argv)
    name = "soak-throughput" if args.throughput else "soak-overlap" if args.overlap else "soak"
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
