"""`benchmark/throughput.py` with a 7B model: our forks and attention against SGLang as it is."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from shape import DUMMY, write

THROUGHPUT = Path(__file__).resolve().parent.parent / "throughput.py"
# Both fit on one card: 15 GB of weights and 11.5 GB of KV each.
SERVER = (
    *DUMMY,
    *"--dtype bfloat16 --mem-fraction-static 0.85 --max-total-tokens 200000".split(),
    *"--context-length 16384 --max-running-requests 300".split(),
    *"--cuda-graph-backend-prefill disabled --cuda-graph-bs-decode".split(),
    *map(str, (1, 2, 4, 8, 16, 32, 64, 128, 256)),
)
OURS, STOCK = "multiverse_triton", "triton"
CASES = "--clients 1 8 32 --branches 8 --length 64 --prompt 2048 --turns 1 --minutes 2.7".split()
TINY_SERVER = (*DUMMY, "--dtype", "float32")
TINY_CASES = "--clients 2 --branches 2 --length 8 --prompt 16 --turns 1".split()


def servers(*, tiny: bool) -> dict[str, str]:
    """The flags of the one that forks and of the other, by the options that take them."""
    if tiny:  # what a CPU is served with, not interpreted
        return dict.fromkeys(("--server", "--stock"), " ".join(TINY_SERVER))
    backends = {"--server": OURS, "--stock": STOCK}
    return {name: " ".join(("--attention-backend", b, *SERVER)) for name, b in backends.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="a small model and a few tokens")
    args = parser.parse_args()
    given = [f"{option}={flags}" for option, flags in servers(tiny=args.tiny).items()]
    cases = TINY_CASES if args.tiny else CASES
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), tiny=args.tiny)
        command = [sys.executable, str(THROUGHPUT), "--model-path", folder, *cases, *given]
        command += ["--ways", "parallel", "plain", "client", "--out", str(args.out)]
        sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
