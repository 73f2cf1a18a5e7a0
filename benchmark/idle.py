"""What sleeping when idle saves and costs on a CPU.

    python benchmark/idle.py

Two servers of the tiny model, one that sleeps and one that polls, asked in
turns for one token after a second's silence. Prints the CPU that each takes
while idle and the median time to the answer.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "test")]

from machine import describe  # noqa: E402

from server import Server  # noqa: E402

PAIRS = 40
SILENCE = 1.0
POLL = {"SGLANG_MULTIVERSE_SLEEP_ON_IDLE": "0"}
NO_CHECKS = {"SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE": "0"}


def cpu_seconds(server: Server) -> float:
    assert server.process is not None
    root = psutil.Process(server.process.pid)
    return sum(sum(p.cpu_times()[:2]) for p in (root, *root.children(recursive=True)))


def ask(server: Server) -> float:
    start = time.perf_counter()
    server.generate("1 + 1", sampling_params={"max_new_tokens": 1})
    return time.perf_counter() - start


def main() -> int:
    with Server(**NO_CHECKS) as asleep, Server(**NO_CHECKS, **POLL) as polling:
        for server in (asleep, polling):
            ask(server)
        time.sleep(2)
        before, start = [cpu_seconds(s) for s in (asleep, polling)], time.monotonic()
        time.sleep(5)
        seconds = time.monotonic() - start
        after = [cpu_seconds(s) for s in (asleep, polling)]
        share = [(b - a) / seconds for a, b in zip(before, after, strict=True)]
        times: tuple[list[float], list[float]] = ([], [])
        for i in range(PAIRS):
            for which in (0, 1) if i % 2 else (1, 0):
                time.sleep(SILENCE)
                times[which].append(ask((asleep, polling)[which]))
    print(describe())
    medians = [1000 * statistics.median(t) for t in times]
    for name, cores, median in zip(("sleeping", "polling"), share, medians, strict=True):
        print(f"{name}: {cores:.2f} cores while idle, {median:.1f} ms to one token (median)")
    ratios = [a / b for a, b in zip(*times, strict=True)]
    print(f"time to one token, sleeping ÷ polling: {statistics.median(ratios):.2f} (median)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
