"""`python -m sglang_multiverse.evaluation list|run|budget|latency|compare|report`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..records import exit_code
from ..settings import add_flags, from_flags
from . import commands, facts, measure
from .compare import compare_runs
from .config import LISTS, AskConfig, BudgetConfig, LatencyConfig, RunConfig, StatisticsConfig
from .errors import EvaluationError
from .report import write_answers, write_report
from .report.comparison import verdict
from .report.figures import require
from .results import results
from .store import Store
from .tasks import known

_CONFIGS: dict[str, type[AskConfig]] = {
    "run": RunConfig,
    "budget": BudgetConfig,
    "latency": LatencyConfig,
}
_WORK: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "run": commands.run,
    "budget": commands.budget,
    "latency": measure.latency,
}
_HELP = {
    "run": "ask all problems of one or more tasks and grade the answers",
    "budget": "accuracy under a ladder of token budgets, against a sequential baseline",
    "latency": "time at growing batch sizes, branches as a batch, one at a time, and sequential",
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=facts.PROG, description=__doc__)
    subs = parser.add_subparsers(dest="command", required=True)
    subs.add_parser("list", help="the tasks, their sizes, licences and sources")
    for name, config in _CONFIGS.items():
        sub = subs.add_parser(
            name,
            help=f"{_HELP[name]}; the same command again goes on where it was",
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )
        sub.add_argument("--out", type=Path, required=True, help="directory of records and report")
        add_flags(sub, config)
    two = subs.add_parser(
        "compare",
        help="two runs on the same problems, paired: per task, per group and pooled",
        argument_default=argparse.SUPPRESS,
    )
    for name in ("a", "b"):
        two.add_argument(name, type=Path, help="directory of a `run`")
    two.add_argument("--out", type=Path, required=True, help="directory of the report")
    add_flags(two, StatisticsConfig)
    report = subs.add_parser("report", help="render the report again from the records")
    report.add_argument("out", type=Path, help="directory of a command above")
    report.add_argument(
        "--answers", action="store_true", help="also write answers.jsonl, a line for each answer"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else list(argv)
    args = build_parser().parse_args(given)
    return exit_code(lambda: _dispatch(args, given), EvaluationError)


def _dispatch(args: argparse.Namespace, given: Sequence[str]) -> int:
    match args.command:
        case "list":
            return _list()
        case "report":
            return _report(args.out, with_answers=args.answers)
        case "compare":
            return _compare(args, given)
        case _:
            return _ask(args, given)


def _ask(args: argparse.Namespace, given: Sequence[str]) -> int:
    flags = {name: value for name, value in vars(args).items() if name not in ("command", "out")}
    config = from_flags(_CONFIGS[args.command], flags, EvaluationError, lists=LISTS)
    require()
    asyncio.run(_WORK[args.command](config, args.out, facts.command(given), Console(stderr=True)))
    return _report(args.out)


def _compare(args: argparse.Namespace, given: Sequence[str]) -> int:
    flags = {name: vars(args)[name] for name in vars(args).keys() & {"resamples", "confidence"}}
    config = from_flags(StatisticsConfig, flags, EvaluationError)
    require()
    found = compare_runs(args.a, args.b, facts.command(given), **asdict(config))
    for path in write_report(found, args.out):
        print(path)
    print(verdict(found))
    return 0


def _report(out: Path, *, with_answers: bool = False) -> int:
    """Write it; the exit code is 1 where answers failed or are missing."""
    with Store(out, read_only=True) as store:
        found = results(store)
        written = [write_answers(store, out / "answers.jsonl")] if with_answers else []
    for path in [*written, *write_report(found, out)]:
        print(path)
    return 1 if any(one["failed"] or one["missing"] for one in found.get("series", ())) else 0


def _list() -> int:
    table = Table("task", "what", "problems", "licence", "source", "needs", box=None)
    for one in known():
        table.add_row(one.name, one.title, one.size, one.licence, one.source, one.needs)
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
