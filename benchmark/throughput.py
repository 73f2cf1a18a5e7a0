"""Answers with a given structure: in parallel, branch by branch, plain, forked by the client.

    python benchmark/throughput.py --out benchmark/results/throughput.json [--model-path MODEL]

What a step costs does not depend on what its tokens say, so structure is replayed: every answer is
the same tokens in every way (`--multiverse-replay`), and is compared. The ways take turns within
each load, so that whatever else the machine does hits all alike. `replay/` has the parts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "replay"), str(HERE), str(HERE.parent / "test")]

from answers import Answer, Tree, Writer, of_tree, windows  # noqa: E402
from loops import session  # noqa: E402
from machine import describe  # noqa: E402
from plan import Plan, Results, carry_out  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402
from ways import WAYS, Asker, is_stock  # noqa: E402

from server import MODEL, Server, ServerError  # noqa: E402
from sglang_multiverse.structure import resolve_tags  # noqa: E402

TRACES = HERE.parent.parent / "shared/data/multiverse_traces.jsonl"
FLAGS = "--sampling-backend pytorch --grammar-backend none --skip-server-warmup".split()
OURS, STOCK = "ours", "SGLang"
# The pool checks of the tests cost time in every step.
NO_CHECKS = {
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "0",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "0",
    "SGLANG_CHECK_KV_PAGE_INVARIANTS": "0",
}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--model-path", default=str(MODEL), help="a folder, or `bundled`: the package's own"
    )
    parser.add_argument("--note", default="", help="is kept with the results")
    parser.add_argument("--threads", type=int, default=1, help="of each server, on a CPU")
    answers = parser.add_argument_group("answers")
    answers.add_argument("--branches", type=int, nargs="*", default=[2, 4, 8], help="of a tree")
    answers.add_argument("--length", type=int, default=64, help="tokens of a branch")
    answers.add_argument("--depth", type=int, default=1, help="blocks within each other")
    answers.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    answers.add_argument("--windows", type=int, default=0, help="this many, of real traces")
    answers.add_argument("--longest-window", type=int, default=600, help="in tokens")
    answers.add_argument("--traces", type=Path, default=TRACES)
    loads = parser.add_argument_group("loads")
    loads.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, metavar="WAY")
    loads.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8], help="in this order")
    loads.add_argument("--answers", type=int, default=8, help="of a way in a case")
    loads.add_argument("--turns", type=int, default=2, help="of a way in a case, at most")
    loads.add_argument(
        "--open", type=float, nargs="*", default=[], metavar="SHARE", help="of the capacity"
    )
    loads.add_argument("--minutes", type=float, default=10, help="what does not fit is left out")
    loads.add_argument("--open-minutes", type=float, default=2, help="of these, for --open")
    servers = parser.add_argument_group("servers")
    servers.add_argument("--server", default="", metavar="FLAGS", help="SGLang's, where it forks")
    servers.add_argument("--stock", default="", metavar="FLAGS", help="SGLang's, where it does not")
    args = parser.parse_args(argv)
    if args.windows and not args.traces.is_file():
        parser.error(f"--traces {args.traces}: there is no such file; --windows needs it")
    if not args.branches and not args.windows:
        parser.error("--branches or --windows: one of them is needed")
    return args


def model_of(named: str) -> tuple[Path, str]:
    """Where it is, and what it is called."""
    if named != "bundled":
        return Path(named), Path(named).name
    from sglang_multiverse.bundled import model_path, packaged

    return model_path(), packaged().name


def structures(args: argparse.Namespace, writer: Writer) -> dict[str, list[Answer]]:
    """What is asked for, by the name of the case."""
    trees = [Tree(args.prompt, branches, args.length, args.depth) for branches in args.branches]
    found = {tree.name: [of_tree(tree, writer)] for tree in trees}
    if args.windows:
        found["windows of real traces"] = windows(
            args.traces,
            writer,
            prompt=args.prompt,
            around=32,
            most=args.longest_window,
            count=args.windows,
        )
    return found


def servers(args: argparse.Namespace, model: Path, scripts: Path, pool: int) -> dict[str, Server]:
    path = filter(None, (str(HERE / "replay/meter"), os.environ.get("PYTHONPATH")))
    env = {**NO_CHECKS, "OMP_NUM_THREADS": str(args.threads), "PYTHONPATH": os.pathsep.join(path)}
    flags = [*FLAGS, "--multiverse-replay", str(scripts)]
    kinds = {False: args.server.split(), True: ["--no-multiverse-enable", *args.stock.split()]}
    wanted = {is_stock(way) for way in args.ways}
    return {
        STOCK if stock else OURS: Server(*flags, *kinds[stock], model=model, pool=pool, **env)
        for stock in sorted(wanted)
    }


def start(found: dict[str, Server]) -> dict[str, str]:
    """Why servers did not start, by their name; empty if all did."""

    def one(server: Server) -> str:
        try:
            server.start()
        except ServerError as error:
            return str(error)[-6000:]
        return ""

    with ThreadPoolExecutor(len(found)) as pool:
        reasons = dict(zip(found, pool.map(one, found.values()), strict=True))
    return {name: why for name, why in reasons.items() if why}


async def measure(plan: Plan, running: dict[str, Server], writer: Writer, results: Results) -> None:
    async with session() as http:
        askers = {
            way: Asker(http, running[STOCK if is_stock(way) else OURS].url, writer)
            for way in plan.ways
        }
        await carry_out(plan, askers, results)


def main() -> int:
    args = parse()
    until = time.monotonic() + 60 * args.minutes
    model, name = model_of(args.model_path)
    tokenizer = AutoTokenizer.from_pretrained(model)
    writer = Writer(tokenizer, resolve_tags(tokenizer))
    cases = structures(args, writer)
    plan = Plan(
        structures=cases,
        ways=args.ways,
        clients=args.clients,
        answers=args.answers,
        turns=args.turns,
        shares=args.open,
        until=until,
        open_seconds=60 * args.open_minutes if args.open else 0.0,
    )
    answers = [answer for some in cases.values() for answer in some]
    results = Results(args.out, {"command": command(), "model": name})
    try:
        results.found["machine"] = describe()
    except Exception as missing:  # packages on the path and not installed
        results.found["machine"] = {"incomplete": str(missing)}
    if args.note:
        results.found["note"] = args.note
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lines = [json.dumps({"name": one.name, "ids": one.ids}) for one in answers]
        (folder / "scripts.jsonl").write_text("\n".join(lines) + "\n")
        most = max(one.prompt + len(one.ids) for one in answers)
        pool = (max(args.clients) + 1) * (most + 32)
        running = servers(args, model, folder / "scripts.jsonl", pool)
        for server in running.values():
            stack.callback(server.stop)
        failed = start(running)
        if failed:
            results.found["did_not_start"] = failed
            results.keep("left_out", f"everything: {', '.join(failed)} did not start")
            return 1
        asyncio.run(measure(plan, running, writer, results))
    return int(results.wrong > 0)


def command() -> str:
    """As it was typed, less the note and the places of this machine."""
    words = sys.argv[1:]
    if "--note" in words:
        at = words.index("--note")
        del words[at : at + 2]
    shown = [Path(word).name if word.startswith("/") else word for word in words]
    return f"python benchmark/throughput.py {shlex.join(shown)}"


if __name__ == "__main__":
    sys.exit(main())
