"""What a server takes to start on a CPU: time, processor and memory.

    python benchmark/start.py [--pairs 3]

Starts the tiny model in turns by our launcher, which forks SGLang's processes from the one that
has imported everything, and by SGLang's own, which has each import for itself. The plugin is the
same in both. Memory is what is freed when the server ends (USS of its processes).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "test")]

from idle import cpu_seconds  # noqa: E402
from machine import describe  # noqa: E402

from server import Server  # noqa: E402

LAUNCHERS = {
    "ours (forks)": "sglang_multiverse.launch_server",
    "SGLang's (spawns)": "sglang.launch_server",
}


class Start(NamedTuple):
    seconds: float
    """From the command to "ready"."""
    core_seconds: float
    mib: float


def start(launcher: str) -> Start:
    # With an environment of its own, a server of the tests starts as users start it.
    server = Server(TOKENIZERS_PARALLELISM="false")
    server.command[2] = launcher
    began = time.perf_counter()
    with server:
        seconds = time.perf_counter() - began
        assert server.process is not None
        root = psutil.Process(server.process.pid)
        processes = [root, *root.children(recursive=True)]
        mib = sum(p.memory_full_info().uss for p in processes) / 2**20
        return Start(seconds, cpu_seconds(server), mib)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=3)
    pairs = parser.parse_args().pairs
    seen: dict[str, list[Start]] = {name: [] for name in LAUNCHERS}
    for i in range(pairs):
        for name in sorted(LAUNCHERS, reverse=bool(i % 2)):
            seen[name].append(start(LAUNCHERS[name]))
    print(describe())
    for name, starts in seen.items():
        middle = Start(*(statistics.median(values) for values in zip(*starts, strict=True)))
        print(
            f"{name}: ready after {middle.seconds:.1f} s, {middle.core_seconds:.1f} s of a core, "
            f"{middle.mib:.0f} MiB (medians of {pairs})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
