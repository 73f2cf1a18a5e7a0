"""Take out of a light environment what packages carry for GPUs and for their own tests.

Usage: ENV/bin/python scripts/trim.py

Nothing that Python imports is touched. Triton's compiler, which the kernels' tests use, stays
whole; only its symbols for a debugger go, where the machine has `strip`.
"""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

SITE = Path(sysconfig.get_path("purelib"))
REMOVED = {
    "triton/backends/nvidia/lib/cupti*": "profiling on a GPU",
    "triton/_C/libproton.so": "the profiler that uses it",
    "triton/instrumentation": "tests of Triton's own",
    "torch/test": "PyTorch's tests in C++",
    "torch/bin/test_*": "the same",
    "torch/bin/protoc*": "a compiler of protocols; torch_shm_manager, beside it, is needed",
    "pandas/tests": "tests",
    "sglang/multimodal_gen/test": "tests",
    "torchvision.libs/libnv*": "pictures on a GPU",
    "torchvision.libs/libcu*": "the same",
}
STRIPPED = ["triton/_C/libtriton.so"]  # 506 MB with the symbols, 192 without


def main() -> None:
    for pattern in REMOVED:
        found = sorted(SITE.glob(pattern))
        for path in found:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        if not found:
            print(f"trim: nothing at {pattern}; is the list of this script out of date?")
    if strip := shutil.which("strip"):
        for name in STRIPPED:
            subprocess.run([strip, "--strip-unneeded", SITE / name], check=True)


if __name__ == "__main__":
    main()
