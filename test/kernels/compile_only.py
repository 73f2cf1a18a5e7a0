"""Compile, for a card that is not there, each kernel that a block of code would launch.

The launches go through Triton's own path, so that what is compiled is what a call compiles:
default tiles, specialisation on strides and alignment. Only the driver is a stand-in, and
nothing runs. Tensors are on torch's `meta` device, so a launch that looked at their data,
and waited for the GPU to do so, would fail.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple
from unittest import mock

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

# Bytes of shared memory that a program may have (CUDA C programming guide, compute capabilities).
SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}


class Compiled(NamedTuple):
    """What the assembler says of a kernel; spilled is bytes stored, a thread."""

    name: str
    shared: int
    registers: int
    spilled: int


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
        with redirect_stdout(io.StringIO()) as log:
            kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        if log.getvalue():  # else compiled before, for this process
            done.append(_measured(self.fn.__name__, kernel, arch, log.getvalue()))
        return kernel

    with (
        mock.patch.object(type(driver), "active", _Driver(arch)),
        mock.patch.object(JITFunction, "run", compile_it),
        knobs.compilation.scope(),
        knobs.nvidia.scope(),
    ):
        knobs.compilation.always_compile = True
        knobs.nvidia.dump_ptxas_log = True
        yield done


def _measured(name: str, kernel: Any, arch: int, log: str) -> Compiled:
    if kernel.metadata.target.arch != arch or not kernel.asm["cubin"]:
        raise ValueError(f"{name} was compiled for {kernel.metadata.target}, not for {arch}")
    spilled = re.search(r"(\d+) bytes spill stores", log)
    registers = re.search(r"Used (\d+) registers", log)
    if spilled is None or registers is None:
        raise ValueError(f"the assembler's log has no figures: {log}")
    return Compiled(name, kernel.metadata.shared, int(registers[1]), int(spilled[1]))
