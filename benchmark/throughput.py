"""Answers with a given structure, replayed: in parallel, one branch at a time, and as plain text.

    python benchmark/throughput.py --out benchmark/results/throughput.json [--model-path MODEL]

Every answer of a tree is the same tokens in all ways, but for the tags, which plain text has none
of. Ways and servers take turns within each number of clients, so that whatever else the machine
does hits all alike. Prompts differ from client to client: nothing is shared between answers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPLAY = HERE / "replay"
sys.path[:0] = [str(REPLAY), str(HERE), str(HERE.parent / "test")]

from machine import describe  # noqa: E402
from multiverse_replay import Replay, Tree, scripts, write  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from server import MODEL, Server, ServerError  # noqa: E402
from sglang_multiverse.structure import TagTable, resolve_tags  # noqa: E402

sys.path.remove(str(HERE))

FLAGS = "--enable-custom-logit-processor --sampling-backend pytorch --grammar-backend none".split()
ENV = {
    # The server imports the processor by its name.
    "PYTHONPATH": os.pathsep.join(filter(None, (str(REPLAY), os.environ.get("PYTHONPATH")))),
    # The pool checks of the tests cost time in every step.
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "0",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "0",
    "SGLANG_CHECK_KV_PAGE_INVARIANTS": "0",
}
PARALLEL, ONE_BY_ONE, PLAIN = "parallel", "one-by-one", "plain-text"
WAYS = (PARALLEL, ONE_BY_ONE, PLAIN)


@dataclass(frozen=True)
class Job:
    """A request and what it must be answered with."""

    body: dict[str, Any]
    answer: list[int]


def job(tree: Tree, way: str, seed: int, tokenizer: Any, tags: TagTable) -> Job:
    ids, prompt = write(tree, tokenizer, tags)
    # Any tokens that are no tags; another prompt for each seed.
    ordinary = [token for token in range(20, 200) if token not in tags.role_of]
    for i in range(min(prompt, 8)):
        ids[i] = ordinary[(seed // len(ordinary) ** i) % len(ordinary)]
    if way == PLAIN:
        ids = [token if token not in tags.role_of else ordinary[0] for token in ids]
    answer = ids[prompt:]
    params: dict[str, Any] = {"temperature": 0, "ignore_eos": True, "max_new_tokens": len(answer)}
    params["custom_params"] = {"replay": scripts(ids, prompt, None if way == PLAIN else tags)}
    body = {"input_ids": ids[:prompt], "sampling_params": params}
    body["custom_logit_processor"] = Replay.to_str()
    if way == ONE_BY_ONE:
        body["multiverse"] = {"max_parallel_branches": 1}
    return Job(body, answer)


def closed_loop(
    server: Server, make: Callable[[int], Job], clients: int, answers: int
) -> dict[str, Any]:
    """`clients` at a time, until `answers` are there."""
    server.flush()
    jobs = [make(seed) for seed in range(answers)]
    wrong = 0

    def ask(one: Job) -> tuple[float, bool, dict[str, Any]]:
        began = time.perf_counter()
        reply = server.http.post("/generate", json=one.body, timeout=600)
        reply.raise_for_status()
        said = reply.json()
        return time.perf_counter() - began, said["output_ids"] == one.answer, said["meta_info"]

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(ask, jobs))
    seconds = time.perf_counter() - began
    wrong = sum(not same for _, same, _ in found)
    latencies = sorted(latency for latency, _, _ in found)
    info = found[0][2].get("multiverse") or {}
    return {
        "answers_s": answers / seconds,
        "tokens_s": sum(len(one.answer) for one in jobs) / seconds,
        "p50_s": statistics.median(latencies),
        "p99_s": latencies[min(len(latencies) - 1, int(0.99 * len(latencies)))],
        "wrong": wrong,
        "degree_of_parallelism": info.get("degree_of_parallelism", 1.0),
        "max_concurrent_branches": info.get("max_concurrent_branches", 1),
    }


def run(
    servers: dict[str, Server],
    tokenizer: Any,
    trees: Sequence[Tree],
    clients: Sequence[int],
    rounds: int,
    ways: Sequence[str],
    until: float,
    keep: Callable[[str, Any], None],
) -> int:
    """Each number of clients, each tree, each server, each way; returns how many were wrong."""
    tags = resolve_tags(tokenizer)
    wrong = 0
    for count in clients:
        for tree in trees:
            name = f"{count} clients, {tree.branches} × {tree.length} behind {tree.prompt}"
            if time.monotonic() > until:
                keep(name, {"skipped": "the time is up"})
                continue
            said: dict[str, Any] = {"tree": asdict(tree)}
            for which, server in servers.items():
                for way in ways:
                    make = lambda seed, way=way, tree=tree: job(tree, way, seed, tokenizer, tags)  # noqa: E731
                    said[f"{which}: {way}"] = closed_loop(server, make, count, count * rounds)
                    wrong += said[f"{which}: {way}"]["wrong"]
            keep(name, said)
    return wrong


def _line(said: dict[str, Any]) -> str:
    rates = f"{said['answers_s']:7.2f} answers/s {said['tokens_s']:7.0f} tokens/s"
    return f"{rates}  p50 {said['p50_s']:.2f} s{'  WRONG' if said['wrong'] else ''}"


def started(server: Server) -> str:
    """Why it did not; empty if it did."""
    try:
        server.start()
    except ServerError as error:
        return str(error)[-6000:]
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model-path", type=Path, default=MODEL)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--branches", type=int, nargs="+", default=[4])
    parser.add_argument("--length", type=int, default=64, help="tokens of a branch")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--rounds", type=int, default=2, help="answers of each client")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, metavar="WAY")
    parser.add_argument("--minutes", type=float, default=10, help="begin no case later")
    parser.add_argument(
        "--server",
        action="append",
        metavar="FLAGS",
        help="SGLang's flags for one server; give it again for another beside it",
    )
    args = parser.parse_args()
    until = time.monotonic() + 60 * args.minutes
    trees = [Tree(args.prompt, branches, args.length) for branches in args.branches]
    command = f"python benchmark/throughput.py {' '.join(sys.argv[1:])}"
    found: dict[str, Any] = {"command": command, "cases": {}}
    try:
        found["machine"] = describe()
    except Exception as missing:  # packages on the path and not installed
        found["machine"] = {"incomplete": str(missing)}

    def keep(name: str, what: Any) -> None:
        found["cases"][name] = what
        args.out.write_text(json.dumps(found, indent=1) + "\n")
        print(name, flush=True)
        for way, said in what.items():
            if isinstance(said, dict) and "answers_s" in said:
                print(f"  {way:50} {_line(said)}", flush=True)

    tokenizer = AutoTokenizer.from_pretrained(args.model_path)
    servers = {
        flags or "as it comes": Server(*FLAGS, *flags.split(), model=args.model_path, **ENV)
        for flags in args.server or [""]
    }
    try:
        with ThreadPoolExecutor(len(servers)) as pool:
            reasons = list(pool.map(started, servers.values()))
        for name, why in zip(list(servers), reasons, strict=True):
            if why:
                keep(f"did not start: {name}", {"log": why})
                servers.pop(name).stop()
        wrong = run(servers, tokenizer, trees, args.clients, args.rounds, args.ways, until, keep)
    finally:
        for one in servers.values():
            one.stop()
    sys.exit(bool(wrong) or not servers)


if __name__ == "__main__":
    main()
