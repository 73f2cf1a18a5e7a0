"""Attention kernels against their peers: time, bytes and operations as shares of the card's best.

    python benchmark/kernels.py --out benchmark/results/kernels.json

Without a GPU the same cases run at tiny sizes in Triton's interpreter. That checks that every
call is right and times nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
GPU = torch.cuda.is_available()
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports Triton

import triton.testing  # noqa: E402
from attention_cases import (  # noqa: E402
    DECODES,
    EXTENDS,
    QWEN_7B,
    QWEN_32B,
    SMOKE,
    SMOKE_DECODES,
    SMOKE_EXTENDS,
    Decode,
)
from attention_peers import DECODE_PEERS, EXTEND_PEERS, Skipped  # noqa: E402
from machine import describe  # noqa: E402

sys.path.remove(str(HERE))  # there is a package of this file's name, which others look for

Case = tuple[str, dict[str, Any]]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def best_of_the_card(dtype: torch.dtype) -> dict[str, float]:
    """Bytes and operations a second, seen here in a copy and in a product of large matrices."""
    block = torch.empty(1 << 29, dtype=torch.bfloat16, device="cuda")
    copy = triton.testing.do_bench(lambda: block.clone(), warmup=50, rep=200)
    n = 8192
    a, b = (torch.randn(n, n, dtype=dtype, device="cuda") for _ in range(2))
    product = triton.testing.do_bench(lambda: a @ b, warmup=50, rep=200)
    return {"bytes_s": 2 * block.nbytes / copy * 1e3, "operations_s": 2 * n**3 / product * 1e3}


def milliseconds(call: Any, *, quick: bool) -> dict[str, Any]:
    """Median and quartiles, the card's caches emptied before each call; and within a CUDA graph.

    The graph has no time of the host in it, as in a server; its median is over warm caches.
    What is slow and waits for the host is timed once (`quick`).
    """
    if quick:
        return {"median": triton.testing.do_bench(call, 1, 1), "graph": None}
    low, middle, high = triton.testing.do_bench(call, 25, 100, quantiles=[0.25, 0.5, 0.75])
    found: dict[str, Any] = {"q1": low, "median": middle, "q3": high, "graph": None}
    try:
        found["graph"] = triton.testing.do_bench_cudagraph(call, rep=50, return_mode="median")
    except Exception as error:  # who cannot be captured is timed without
        found["graph_failed"] = _said(error)
        torch.cuda.synchronize()
    return found


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:300]}"


def measure(given: Any, peers: dict[str, Any], best: dict[str, float] | None) -> dict[str, Any]:
    """For each peer: error, and times and shares of the card; or why it was skipped, or failed."""
    tensors = given.tensors
    want = peers["reference"](given)().float()
    found: dict[str, Any] = {}
    for name, prepare in peers.items():
        if name == "reference" and best is None:
            continue
        try:
            call = prepare(given)
            error = (call().float() - want).abs().max().item()
            found[name] = {"error": error, "right": error <= TOLERANCE[tensors.q.dtype]}
            if best is not None:
                found[name] |= _rates(given, milliseconds(call, quick=name == "reference"), best)
        except (Skipped, ImportError) as missing:
            found[name] = {"skipped": str(missing)}
        except Exception as error:  # one peer's fault must not end the run
            found[name] = {"failed": _said(error)}
    return found


def _rates(given: Any, ms: dict[str, Any], best: dict[str, float]) -> dict[str, Any]:
    """What the card did of its best, by the graph's time where there is one."""
    seconds = (ms["graph"] or ms["median"]) / 1e3
    bound = max(given.bytes / best["bytes_s"], given.operations / best["operations_s"])
    return {
        "ms": ms,
        "gb_s": given.bytes / seconds / 1e9,
        "tflop_s": given.operations / seconds / 1e12,
        "share_of_bandwidth": given.bytes / best["bytes_s"] / seconds,
        "share_of_products": given.operations / best["operations_s"] / seconds,
        "share_of_roofline": bound / seconds,
    }


def run(minutes: float, dtype: torch.dtype, best: dict[str, float] | None) -> Iterator[Case]:
    """Each case as it is done; those for which the time is up are named."""
    until = time.monotonic() + 60 * minutes
    shapes = {"7B": QWEN_7B, "32B": QWEN_32B} if GPU else {"tiny": SMOKE}
    cases = [*(DECODES if GPU else SMOKE_DECODES), *(EXTENDS if GPU else SMOKE_EXTENDS)]
    for shape, heads in shapes.items():
        for case in cases:
            name = f"{type(case).__name__.lower()}: {case.name}, {shape}"
            if time.monotonic() > until:
                yield name, {"skipped": "the time is up"}
                continue
            given = case.build(heads, dtype, "cuda" if GPU else "cpu")
            decodes = isinstance(case, Decode)
            yield (
                name,
                {
                    "bytes": given.bytes,
                    **({"bytes_unshared": given.bytes_unshared} if decodes else {}),
                    "operations": given.operations,
                    "peers": measure(given, DECODE_PEERS if decodes else EXTEND_PEERS, best),
                },
            )


def _table(name: str, case: dict[str, Any]) -> str:
    lines = [name if "peers" in case else f"{name}: {case}"]
    for peer, said in case.get("peers", {}).items():
        if "error" not in said:
            lines.append(f"  {peer:28} {said}")
            continue
        text = f"error {said['error']:.1e}{'' if said['right'] else ' WRONG'}"
        if "ms" in said:
            text += f"  {said['ms']['median']:.3f} ms, in a graph {said['ms']['graph'] or 0:.3f} ms"
            text += f"  {said['gb_s']:.0f} GB/s  {said['tflop_s']:.0f} TFLOP/s"
            text += f"  {said['share_of_roofline']:.0%} of the roofline"
        lines.append(f"  {peer:28} {text}")
    return "\n".join(lines)


def _machine() -> dict[str, Any]:
    """Less where packages are on the path and not installed, as on a bare GPU machine."""
    try:
        return describe()
    except PackageNotFoundError as missing:
        name = torch.cuda.get_device_name() if GPU else None
        return {"accelerator": name, "torch": torch.__version__, "not_installed": str(missing)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5, help="begin no case later (default: 5)")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    args = parser.parse_args()
    # The interpreter cannot multiply bf16.
    dtype = getattr(torch, args.dtype) if GPU else torch.float32
    command = f"python benchmark/kernels.py --minutes {args.minutes:g} --dtype {args.dtype}"
    best = best_of_the_card(dtype) if GPU else None
    cases: dict[str, Any] = {}
    result = {
        "command": command,
        "machine": _machine(),
        "triton": triton.__version__,
        "dtype": str(dtype),
        "best_of_the_card": best,
        "cases": cases,
    }
    for name, case in run(args.minutes, dtype, best):
        cases[name] = case
        print(_table(name, case), flush=True)
        if args.out is not None:  # a run that is cut short keeps what it has
            args.out.write_text(json.dumps(result, indent=1) + "\n")
    ours = [case["peers"]["ours"] for case in cases.values() if "peers" in case]
    sys.exit(not all(said.get("right", False) for said in ours))


if __name__ == "__main__":
    main()
