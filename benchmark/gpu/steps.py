"""What a decode step of a 7B model costs, with shared prefixes and without, in CUDA graphs.

    python benchmark/gpu/steps.py --out steps.json

The model has Qwen2.5-7B's shape and random weights, the pool random KV: what a step costs does
not depend on what it says. The rows of both are the same, and so are the logits, up to rounding.
No server and no scheduler: this is the time of the model's forward alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from lone import GPU, LoneRunner, Row
from shape import DUMMY, write

from sglang_multiverse.kernels.grouping import Link
from sglang_multiverse.kernels.visible import Visible


@dataclass(frozen=True)
class Case:
    """`families` prompts of `prefix` tokens with `branches` rows each, of `own` tokens more."""

    families: int
    branches: int
    prefix: int
    own: int

    @property
    def rows(self) -> int:
        return self.families * self.branches

    @property
    def tokens(self) -> int:
        """Slots: of a prefix once, and one more for what the step writes."""
        return self.families * (self.prefix + self.branches * (self.own + 1))

    @property
    def tokens_unshared(self) -> int:
        return self.rows * (self.prefix + self.own + 1)


# From one request to a full card; the last shares nothing.
CASES = (
    Case(1, 4, 2048, 200),
    Case(1, 8, 8192, 200),
    Case(1, 16, 8192, 500),
    Case(4, 8, 4096, 500),
    Case(16, 8, 4096, 500),
    Case(32, 8, 4096, 500),
    Case(8, 16, 16384, 500),
    Case(64, 1, 2048, 500),
)
TINY_CASES = (Case(2, 2, 200, 5),)


def batch(runner: LoneRunner, case: Case) -> tuple[Any, list[tuple[Link, ...]]]:
    """The `ForwardBatch` of a step, and what its rows share."""
    runner.reset()
    rows: list[Row] = []
    chains: list[tuple[Link, ...]] = []
    for family in range(case.families):
        trunk = Row(0)
        trunk.slots = runner.take(case.prefix)
        for _ in range(case.branches):
            row = runner.row(trunk)
            runner.grow(row, case.own)
            rows.append(row)
            chains.append((Link(family, case.prefix),))
    ids = [100 + i for i in range(len(rows))]
    step = runner.next_step(rows, ids, [case.prefix + case.own] * len(rows))
    return step, chains if case.branches > 1 else ()


def forward(runner: LoneRunner, step: Any, chains: Any) -> torch.Tensor:
    runner.backend.expect(Visible(chains=chains))
    with torch.no_grad():
        done = runner.runner.forward(step)
    runner.in_graph = done.can_run_graph
    logits: torch.Tensor = done.logits_output.next_token_logits
    return logits


def synchronize() -> None:
    if GPU:
        torch.cuda.synchronize()


def milliseconds(runner: LoneRunner, step: Any, chains: Any, repeats: int) -> dict[str, float]:
    """Of one step: `device`, by the card's own clock in a queue of steps; `wall`, one by one.

    All runs write the same slot again, so that all cost the same.
    """
    wall = []
    for _ in range(repeats):
        synchronize()
        began = time.perf_counter()
        forward(runner, step, chains)
        synchronize()
        wall.append(1e3 * (time.perf_counter() - began))
    found = {"wall": statistics.median(wall)}
    if GPU:
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
        for mark in marks[:-1]:
            mark.record()
            forward(runner, step, chains)
        marks[-1].record()
        synchronize()
        found["device"] = statistics.median(a.elapsed_time(b) for a, b in pairwise(marks))
    return found


def measure(runner: LoneRunner, case: Case, repeats: int) -> dict[str, Any]:
    step, chains = batch(runner, case)
    ways: dict[str, Any] = {"plain": (), **({"shared": chains} if chains else {})}
    logits, found = {}, {}
    for name, told in ways.items():
        for _ in range(2):
            logits[name] = forward(runner, step, told).float().clone()
        found[name] = {"in_graph": runner.in_graph}
    # Alternately, so that a card that gets warm does so for both.
    times: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(3):
        for name, told in ways.items():
            times[name].append(milliseconds(runner, step, told, repeats))
    for name in ways:
        for clock in times[name][0]:
            found[name][f"{clock}_ms"] = statistics.median(one[clock] for one in times[name])
    said: dict[str, Any] = {"rows": case.rows, "tokens": case.tokens, **found}
    if chains:
        a, b = logits["plain"], logits["shared"]
        said["difference"] = ((a - b).norm() / a.norm()).item()
        said["same_choice"] = (a.argmax(-1) == b.argmax(-1)).float().mean().item()
        clock = "device_ms" if GPU else "wall_ms"
        said["speedup"] = found["plain"][clock] / found["shared"][clock]
    return said


def profile(runner: LoneRunner, case: Case, most: int = 14) -> dict[str, Any]:
    """Where the card's time goes in a step, by kernel, in ms."""
    step, chains = batch(runner, case)
    activity = torch.profiler.ProfilerActivity
    kinds = [activity.CPU, *([activity.CUDA] if GPU else [])]
    found = {}
    for name, told in (("plain", ()), ("shared", chains)):
        for _ in range(3):
            forward(runner, step, told)
        synchronize()
        with torch.profiler.profile(activities=kinds) as seen:
            for _ in range(3):
                forward(runner, step, told)
            synchronize()

        def spent(event: Any) -> float:
            return float(event.self_device_time_total if GPU else event.self_cpu_time_total)

        events = sorted(seen.key_averages(), key=spent, reverse=True)[:most]
        found[name] = [
            {"kernel": e.key[:120], "calls": e.count / 3, "ms": spent(e) / 3e3} for e in events
        ]
    return found


def flags(cases: Sequence[Case], *, tiny: bool = False, eager: bool = False) -> list[str]:
    """Of SGLang."""
    found = [*DUMMY, "--mem-fraction-static", "0.9", "--context-length", "32768"]
    found += ["--dtype", "float32" if tiny else "bfloat16"]
    if eager:
        return [*found, "--disable-cuda-graph"]
    sizes = sorted({case.rows for case in cases})
    found += ["--cuda-graph-backend-prefill", "disabled"]
    return [*found, "--cuda-graph-bs-decode", *map(str, sizes)]


def load(folder: Path, cases: Sequence[Case], *, tiny: bool, eager: bool) -> LoneRunner:
    write(folder, tiny=tiny)
    runner = LoneRunner(
        *flags(cases, tiny=tiny, eager=eager),
        model=folder,
        slots=max(case.tokens for case in cases) + 64,
        rows=max(case.rows for case in cases),
    )
    pool = runner.runner.token_to_kv_pool
    for layer in range(pool.start_layer, pool.start_layer + pool.layer_num):
        pool.get_key_buffer(layer).normal_()
        pool.get_value_buffer(layer).normal_()
    return runner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--eager", action="store_true", help="without CUDA graphs")
    parser.add_argument("--tiny", action="store_true", help="a small model and a few tokens")
    args = parser.parse_args()
    cases, repeats = (TINY_CASES, 1) if args.tiny else (CASES, args.repeats)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        runner = load(Path(folder), cases, tiny=args.tiny, eager=args.eager)
        found: dict[str, Any] = {
            "card": torch.cuda.get_device_name() if GPU else None,
            "torch": torch.__version__,
            "backend": type(runner.backend).__name__,
            "up_after": round(time.monotonic() - began, 1),
            "cases": {},
        }

        def keep(name: str, what: Any) -> None:
            found["cases"][name] = what
            args.out.write_text(json.dumps(found, indent=1) + "\n")
            print(name, what, flush=True)

        keep_profile = cases[min(4, len(cases) - 1)]
        failed = False
        for case in cases:
            name = f"{case.families} × {case.branches}, {case.prefix} + {case.own}"
            try:
                keep(name, measure(runner, case, repeats))
                if case is keep_profile:
                    keep(f"profile of {name}", profile(runner, case))
            except Exception:  # the next case may do
                failed = True
                keep(name, {"failed": traceback.format_exc()[-2000:]})
    sys.exit(failed)


if __name__ == "__main__":
    main()
