"""Compile, for a card that is not there, each kernel that a block of code would launch.

The launches go through Triton's own path, so that what is compiled is what a call compiles:
default tiles, specialisation on strides and alignment. Only the driver is a stand-in, and
nothing runs. Tensors are on torch's `meta` device.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.runtime import driver
from triton.runtime.jit import JITFunction

# Bytes of shared memory that a program may have (CUDA C programming guide, compute capabilities).
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}


class Compiled(NamedTuple):
    name: str
    shared: int
    registers: int
    stack: int  # bytes a thread keeps in memory; spilled registers are among them


class _Driver:
    """What Triton asks of a driver before it launches."""

    def __init__(self, arch: int) -> None:
        self.arch = arch

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.arch, 32)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("meta")

    def get_current_device(self) -> int:
        return self.arch  # kernels are kept by device number: one for each card

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


@contextmanager
def compile_only(arch: int) -> Iterator[list[Compiled]]:
    """Inside, launches compile for `arch` and end there; yields what was compiled."""
    done: list[Compiled] = []
    run = JITFunction.run

    def compile_it(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        done.append(_measure(self.fn.__name__, kernel, arch))
        return kernel

    stand_in = _Driver(arch)
    with (
        mock.patch.object(type(driver), "active", stand_in),
        mock.patch.object(JITFunction, "run", compile_it),
    ):
        yield done


def _measure(name: str, kernel: Any, arch: int) -> Compiled:
    cuobjdump = Path(get_ptxas(arch).path).with_name("cuobjdump")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [cuobjdump, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(rf"Function {name}:\s*REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise ValueError(f"no usage of {name} in: {usage}")
    return Compiled(name, kernel.metadata.shared, int(found[1]), int(found[2]))
