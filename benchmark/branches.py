"""The same prompts, their branches one at a time against their branches as a batch.

    python benchmark/branches.py

One server, one run. A pair asks one prompt both ways, each from an empty cache
and in an order that changes from pair to pair, so that whatever else the
machine does hits both alike. Greedy answers must not depend on the way; a run
whose answers do ends with exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import track

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "test")]

from figures import Pair, Run, agreement, markdown, summarise  # noqa: E402
from machine import describe  # noqa: E402

from models import problems  # noqa: E402
from server import MODEL, Server  # noqa: E402

BRANCHES = range(2, 9)
MAX_TOKENS = 1200
WAYS: dict[str, dict[str, int]] = {"batched": {}, "alone": {"max_parallel_branches": 1}}
# Two best logits this close may change places with the batch size, which changes how sums round.
TIE = 1e-3
# The pool checks of the tests cost time in every step.
NO_CHECKS = {
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY": "0",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "0",
    "SGLANG_CHECK_KV_PAGE_INVARIANTS": "0",
}


class Client:
    """Plain HTTP: a measurement should not hold a client library's work."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=600, trust_env=False)

    def ask(self, prompt: str, options: dict[str, int], **rest: Any) -> dict[str, Any]:
        body = {
            "model": "default",
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
            "multiverse": options,
            **rest,
        }
        answer = self.http.post("/v1/chat/completions", json=body)
        answer.raise_for_status()
        choice: dict[str, Any] = answer.json()["choices"][0]
        return choice

    def flush(self) -> None:
        self.http.post("/flush_cache", params={"timeout": 30}).raise_for_status()

    def run(self, prompt: str, options: dict[str, int]) -> Run:
        self.flush()
        start = time.perf_counter()
        choice = self.ask(prompt, options)
        seconds = time.perf_counter() - start
        return Run(
            seconds, choice["message"]["content"], choice["finish_reason"], choice["multiverse"]
        )

    def is_tie(self, prompt: str) -> bool:
        """Whether the two ways part where the two best tokens are as good as equal."""
        first, second = (self._tokens(prompt, options) for options in WAYS.values())
        for one, other in zip(first, second, strict=False):
            if one["token"] != other["token"]:
                gaps = [
                    token["top_logprobs"][0]["logprob"] - token["top_logprobs"][1]["logprob"]
                    for token in (one, other)
                ]
                return max(gaps) < TIE
        return False

    def _tokens(self, prompt: str, options: dict[str, int]) -> list[dict[str, Any]]:
        self.flush()
        choice = self.ask(prompt, options, logprobs=True, top_logprobs=2)
        tokens: list[dict[str, Any]] = choice["logprobs"]["content"]
        return tokens


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    machine = describe()
    with serving(args) as url:
        client = Client(url)
        info = client.http.get("/server_info").json()
        chosen = choose(args.problems)
        for problem in chosen[:: args.problems]:  # one of each size, to warm up
            for options in WAYS.values():
                client.run(problem.prompt, options)
        pairs = measure(client, chosen, args.repeats)
        parted = sorted(
            {pair.problem.prompt for pair in pairs if pair.comparable and not pair.same}
        )
        ties = {prompt for prompt in parted if client.is_tie(prompt)}
    rows = [
        row
        for count in BRANCHES
        if (row := summarise(count, [p for p in pairs if p.batched.summary["branches"] == count]))
    ]
    result = {
        "command": command(sys.argv[1:] if argv is None else argv),
        "machine": {
            **machine,
            "server": {key: info.get(key) for key in ("device", "dtype", "attention_backend")},
            "torch_threads": int(os.environ.get("OMP_NUM_THREADS", "1")) if not args.url else None,
        },
        "model": "test/models/tiny-multiverse" if args.model_path == MODEL else "another",
        "repeats": args.repeats,
        "problems_per_number_of_branches": args.problems,
        "agreement": agreement(pairs, ties),
        "branches": rows,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    Console().print(markdown(rows), markup=False, highlight=False, soft_wrap=True)
    print(json.dumps(result["agreement"]))
    return 1 if set(parted) - ties or not rows else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model-path", type=Path, default=MODEL)
    parser.add_argument("--url", help="a server that runs already, and does nothing else")
    parser.add_argument("--repeats", type=int, default=5, help="pairs per prompt (default: 5)")
    parser.add_argument(
        "--problems", type=int, default=8, help="prompts per number of branches (default: 8)"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results" / "branches.json")
    args = parser.parse_args(argv)
    if args.repeats < 1 or args.problems < 1:
        parser.error("--repeats and --problems are at least 1")
    return args


@contextlib.contextmanager
def serving(args: argparse.Namespace) -> Iterator[str]:
    if args.url:
        yield args.url.rstrip("/")
        return
    threads = os.environ.get("OMP_NUM_THREADS", "1")
    with Server(model=args.model_path, OMP_NUM_THREADS=threads, **NO_CHECKS) as server:
        yield server.url


def choose(each: int) -> list[problems.Problem]:
    """Problems that were not trained on, `each` for every number of parts."""
    found: dict[int, list[problems.Problem]] = {count: [] for count in BRANCHES}
    seed = 0
    while any(len(some) < each for some in found.values()):
        problem = problems.generate(seed, "held-out", "flat")
        if len(some := found[len(problem.parts)]) < each:
            some.append(problem)
        seed += 1
    return [problem for some in found.values() for problem in some]


def measure(client: Client, chosen: Sequence[problems.Problem], repeats: int) -> list[Pair]:
    pairs = []
    rounds = [(repeat, problem) for repeat in range(repeats) for problem in chosen]
    for number, (_, problem) in enumerate(track(rounds, description="pairs", transient=True)):
        order = list(WAYS) if number % 2 else list(reversed(WAYS))
        runs = {way: client.run(problem.prompt, WAYS[way]) for way in order}
        pairs.append(Pair(problem, **runs))
    return pairs


def command(argv: Sequence[str]) -> str:
    """As it was typed, less the places of this machine."""
    shown = [Path(word).name if Path(word).is_absolute() else word for word in argv]
    return " ".join(["python benchmark/branches.py", *shown])


if __name__ == "__main__":
    sys.exit(main())
