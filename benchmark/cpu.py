"""Tokens per second on a CPU: the compiled decoder against torch-native, and against the machine.

    python benchmark/cpu.py --model PATH --out benchmark/results/cpu.json

Serves one model several ways at once, on this machine's cores, and asks the servers in turns, so
that other work on the machine slows all of them. Only decoding is timed: prompts are in the cache
before. The limit of a row of the table is the time to read weights and KV once, or to multiply,
whichever is longer, at the rates that the same run measured.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "test")]

from machine import describe  # noqa: E402

from server import Server  # noqa: E402

ROWS = (1, 4, 8, 32)
CONTEXTS = (100, 1000)
NEW = 48  # tokens of an answer
PROMPT = 1000  # tokens of the prompt whose first token is timed
NO_CHECKS = {
    f"SGLANG_{name}": "0"
    for name in (
        "ENABLE_STRICT_MEM_CHECK_DURING_BUSY",
        "ENABLE_STRICT_MEM_CHECK_DURING_IDLE",
        "CHECK_KV_PAGE_INVARIANTS",
    )
}


class Way(NamedTuple):
    """How the model is served, and the bytes of a weight."""

    flags: tuple[str, ...]
    weight_bytes: int


WAYS = {
    "torch_native": Way(("--attention-backend", "torch_native"), 4),
    "fp32": Way(("--multiverse-cpu-weights", "fp32"), 4),
    "bf16": Way(("--multiverse-cpu-weights", "bf16"), 2),
    "int8": Way(("--multiverse-cpu-weights", "int8"), 1),
}


def best_of(times: int, call: Any) -> float:
    def once() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return min(once() for _ in range(times))


def machine_limits(threads: int) -> dict[str, float]:
    """Bytes read and floating-point operations per second: the better of torch and ours."""
    from sglang_multiverse.kernels.cpu.library import instruction_set, set_threads
    from sglang_multiverse.kernels.cpu.linear import PackedLinear

    torch.set_num_threads(threads)
    set_threads(threads)
    numbers = torch.ones(1 << 28)
    read = numbers.numel() * 4 / best_of(5, numbers.sum)
    wide = PackedLinear.pack(torch.randn(1 << 15, 4096), torch.float32)
    one = torch.randn(1, 4096)
    ours = wide.weight.numel() / best_of(5, lambda: wide(one))
    side = 1536
    a, b = torch.randn(side, side), torch.randn(side, side)
    packed = PackedLinear.pack(b, torch.float32)
    work = 2 * side**3
    multiply, multiply_ours = (
        work / best_of(5, lambda: torch.mm(a, b)),
        work / best_of(5, lambda: packed(a)),
    )
    print(
        f"{threads} threads: read {read / 1e9:.1f} GB/s by torch, {ours / 1e9:.1f} by ours; fp32 "
        f"products {multiply / 1e9:.0f} GFLOP/s by torch, {multiply_ours / 1e9:.0f} by ours "
        f"({instruction_set()})",
        flush=True,
    )
    return {"read": max(read, ours), "multiply": max(multiply, multiply_ours)}


class Size(NamedTuple):
    """Of a dense model: weights that a step multiplies, and fp32 bytes of a token's KV."""

    weights: int
    kv_bytes: int

    @classmethod
    def of(cls, model: Path) -> Size:
        c = json.loads((model / "config.json").read_text())
        hidden, layers, dim = c["hidden_size"], c["num_hidden_layers"], c["head_dim"]
        heads, kv = c["num_attention_heads"], c["num_key_value_heads"]
        layer = hidden * dim * (2 * heads + 2 * kv) + 3 * hidden * c["intermediate_size"]
        return cls(layers * layer + hidden * c["vocab_size"], layers * kv * dim * 2 * 4)

    def limit(self, rows: int, context: int, way: Way, rates: dict[str, float]) -> float:
        """Tokens per second."""
        read = self.weights * way.weight_bytes + rows * (context + NEW / 2) * self.kv_bytes
        return rows / max(read / rates["read"], 2 * rows * self.weights / rates["multiply"])


def prompts(rows: int, length: int, seed: int) -> list[list[int]]:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randint(100, 40000, (rows, length), generator=drawn).tolist()


def generate(server: Server, ids: list[list[int]], tokens: int) -> float:
    """Seconds."""
    params = {"temperature": 0, "ignore_eos": True, "max_new_tokens": tokens}
    start = time.perf_counter()
    answer = server.http.post("/generate", json={"input_ids": ids, "sampling_params": params})
    answer.raise_for_status()
    return time.perf_counter() - start


def interleaved(servers: dict[str, Server], pairs: int, rows: int, context: int) -> dict[str, Any]:
    """Seconds of each way, in every round."""
    ids = prompts(rows, context, seed=rows + context)
    for server in servers.values():
        server.flush()
        generate(server, ids, 1)
    seconds: dict[str, list[float]] = {name: [] for name in servers}
    for _ in range(pairs):
        for name, server in servers.items():
            seconds[name].append(generate(server, ids, NEW))
    return seconds


def first_token(servers: dict[str, Server], pairs: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in servers}
    for i in range(pairs):
        for name, server in servers.items():
            seconds[name].append(generate(server, prompts(1, PROMPT, seed=10**6 + i), 1))
    return seconds


def measure(args: argparse.Namespace, found: dict[str, Any]) -> None:
    """Adds to `found`, which is written after each cell of the table."""
    names, pairs = args.ways, args.pairs
    rates = machine_limits(args.threads)
    found["limits"] = {name: round(rate / 1e9, 1) for name, rate in rates.items()}
    size = Size.of(args.model)
    pool = max(max(args.rows) * (max(args.contexts) + NEW + 8), PROMPT + NEW)
    env = {**NO_CHECKS, "OMP_NUM_THREADS": str(args.threads)}
    servers = {
        name: Server(*WAYS[name].flags, model=args.model, pool=pool, **env) for name in names
    }
    rows_found = found["decode"] = []
    try:
        for server in servers.values():
            server.start()
            server.http.timeout = 600
        firsts = first_token(servers, pairs)
        first = {name: statistics.median(values) for name, values in firsts.items()}
        found["first_token_s"] = {name: round(value, 3) for name, value in first.items()}
        print(f"first token of {PROMPT}:", {n: f"{s:.2f} s" for n, s in first.items()}, flush=True)
        for context in args.contexts:
            for rows in args.rows:
                seconds = interleaved(servers, pairs, rows, context)
                for name in names:
                    rate = rows * NEW / statistics.median(seconds[name])
                    ratios = [a / b for a, b in zip(seconds[names[0]], seconds[name], strict=True)]
                    limit = size.limit(rows, context, WAYS[name], rates)
                    rows_found.append(
                        {
                            "way": name,
                            "rows": rows,
                            "context": context,
                            "tokens_per_second": round(rate, 1),
                            f"times_{names[0]}": round(statistics.median(ratios), 2),
                            "limit": round(limit, 1),
                            "share_of_limit": round(rate / limit, 2),
                        }
                    )
                    print(rows_found[-1], flush=True)
                if args.out:
                    args.out.write_text(json.dumps(found, indent=1) + "\n")
    finally:
        for server in servers.values():
            server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="a dense Llama, as a folder")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--contexts", type=int, nargs="+", default=CONTEXTS, help="tokens before")
    parser.add_argument("--pairs", type=int, default=5, help="rounds of each measurement")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, help="where the figures go, as JSON")
    args = parser.parse_args()
    found = {"command": shlex.join(["python", *sys.argv]), "machine": describe()}
    found |= {"threads": args.threads, "pairs": args.pairs}
    measure(args, found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
