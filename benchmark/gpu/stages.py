"""What `proof.py` runs, most valuable first, and how long each may take."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


class Stage(NamedTuple):
    """A program of its own, which writes `<out>/<name>.json` as it goes.

    Attributes:
        group: stages of one group run at the same time: none of them measures time.
        limit: seconds after which it is killed; what it wrote stays.
        least: seconds without which it is not begun.
        exact: in fp32 throughout, as references are.
        again: arguments with which it is run once more if it failed.
    """

    name: str
    group: int
    limit: int
    least: int
    command: tuple[str, ...]
    exact: bool = False
    again: tuple[str, ...] = ()


# As the first of `servers.py`: in CUDA graphs, and with the overlap loop.
SOAK_SERVER = (
    "--attention-backend multiverse_triton --sampling-backend pytorch --grammar-backend none"
    " --cuda-graph-backend-prefill disabled --mem-fraction-static 0.1"
)


def _python(script: Path, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, str(script), *arguments)


def stages(*, rehearse: bool) -> list[Stage]:
    kernels = [
        str(ROOT / f"test/kernels/arithmetic/test_{n}.py") for n in ("extend", "shared_prefix")
    ]
    parity = str(ROOT / "test/attention/parity")
    if rehearse:
        # Interpreted, it would answer nothing in time.
        soak = ("--minutes", "0.5", "--clients", "48", "--prompts", "8")
        few = ("-k", "ten_blocks or many_states")
        one = ("-k", "one_extend and flat and nothing")
        tiny = ("--tiny",)
    else:
        few, one, tiny = (), (), ()
        soak = ("--minutes", "1", "--prompts", "40", "--server-flags", SOAK_SERVER)
    # What a process allocates once, at first, is more than it may grow in a long run.
    soak += ("--overlap", "--deadline", "120", "--rss-tolerance", "1024")
    found = [
        Stage("machine", 0, 90, 20, _python(HERE / "machine_check.py", *tiny)),
        Stage("arithmetic", 1, 150, 30, _python(HERE / "run_tests.py", *kernels, *few), exact=True),
        Stage("backend", 1, 120, 40, _python(HERE / "run_tests.py", parity, *one), exact=True),
        Stage("servers", 1, 150, 50, _python(HERE / "servers.py", *tiny), exact=True),
        Stage("soak", 1, 150, 100, _python(ROOT / "benchmark/soak.py", *soak), exact=True),
        Stage("training", 1, 150, 60, _python(HERE / "training.py", *tiny)),
        Stage("kernels", 2, 90, 30, _python(ROOT / "benchmark/kernels.py", "--minutes", "1")),
        Stage("steps", 3, 140, 60, _python(HERE / "steps.py", *tiny), again=("--eager",)),
        Stage("throughput", 4, 200, 90, _python(HERE / "replay_7b.py", *tiny)),
    ]
    # A CPU that interprets, and has other work, is slow; nothing is measured there.
    return [stage._replace(limit=4 * stage.limit) for stage in found] if rehearse else found
