"""The first stage: what there is, and at which import, library or kernel it fails.

Each check is independent. It also compiles what SGLang compiles at its first start, so that the
stages after it, which run at the same time, find it done.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def versions() -> dict[str, Any]:
    import torch
    import triton

    gpu = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "transformers": importlib.import_module("transformers").__version__,
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "processors": torch.cuda.get_device_properties(0).multi_processor_count if gpu else None,
        "memory_gib": round(torch.cuda.get_device_properties(0).total_memory / 2**30) if gpu else 0,
        "nvcc": shutil.which("nvcc"),
        "libcudart": Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "lib64").exists(),
    }


def sgl_kernel() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return {"skipped": "there is no GPU"}
    import sgl_kernel as kernels

    x = torch.randn(4, 256, device="cuda", dtype=torch.bfloat16)
    weight = torch.ones(256, device="cuda", dtype=torch.bfloat16)
    want = torch.nn.functional.rms_norm(x.float(), (256,), eps=1e-6)
    return {"rmsnorm_error": (kernels.rmsnorm(x, weight, 1e-6).float() - want).abs().max().item()}


def imports() -> dict[str, Any]:
    """What SGLang's processes import first; the name that fails is in the traceback."""
    names = (
        "sglang.srt.server_args",
        "sglang.srt.managers.scheduler",
        "sglang.srt.entrypoints.http_server",
        "sglang.benchmark.one_batch",
        "sglang_multiverse.engine.scheduler",
        "sglang_multiverse.attention.backend",
    )
    found: dict[str, Any] = {}
    for name in names:
        began = time.monotonic()
        try:
            importlib.import_module(name)
            found[name] = round(time.monotonic() - began, 2)
        except Exception:  # a report, whatever it is
            found[name] = traceback.format_exc()[-1500:]
    return found


def a_step() -> dict[str, Any]:
    """SGLang's own Triton backend and operators: one extend, one decode, without graphs."""
    from lone import GPU, LoneRunner

    # Its operators take half precision on a GPU; the interpreter does not.
    flags = ["--json-model-override-args", '{"num_hidden_layers": 1}', "--disable-cuda-graph"]
    flags += ["--dtype", "bfloat16" if GPU else "float32"]
    runner = LoneRunner(*flags, backend="triton")
    row = runner.row()
    runner.extend([row], [[5, 6, 7]], [0, 1, 2], None)
    logits = runner.decode([row], [8], [3])
    return {"finite": bool(logits.isfinite().all()), "backend": type(runner.backend).__name__}


CHECKS: tuple[Callable[[], dict[str, Any]], ...] = (versions, sgl_kernel, imports, a_step)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="there is nothing that is larger")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for check in CHECKS:
        began = time.monotonic()
        try:
            found[check.__name__] = check()
        except BaseException as error:  # SGLang exits where it finds no kernel
            found[check.__name__] = {"failed": traceback.format_exc()[-3000:]}
            if isinstance(error, KeyboardInterrupt):
                raise
        found[check.__name__]["seconds"] = round(time.monotonic() - began, 1)
        args.out.write_text(json.dumps(found, indent=1) + "\n")
        print(check.__name__, found[check.__name__], flush=True)
    failed = [name for name, said in found.items() if "failed" in said]
    failed += [name for name, said in found["imports"].items() if isinstance(said, str)]
    sys.exit(", ".join(failed) or 0)


if __name__ == "__main__":
    main()
