"""What pyproject.toml cannot state: the CPU kernels are compiled into the wheel."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
KERNELS = "kernels/cpu"
sys.path.insert(0, str(ROOT / KERNELS))

from build import LIBRARY, CompileError, compile_library  # noqa: E402


class BuildKernels(build_ext):
    """A shared library that Python does not link to; without a compiler, a wheel without it."""

    def run(self) -> None:
        if self.inplace or self.editable_mode:
            return  # a checkout's library is made by scripts/env.sh
        try:
            compile_library(self._target)
        except CompileError as error:
            self.warn(f"the wheel will have no compiled CPU kernels: {error}")

    def get_outputs(self) -> list[str]:
        return [str(self._target)] if self._target.exists() else []

    def get_output_mapping(self) -> dict[str, str]:
        return {}

    @property
    def _target(self) -> Path:
        return Path(self.build_lib) / "sglang_multiverse" / KERNELS / LIBRARY


class PlatformWheel(bdist_wheel):
    """For any Python on this platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


sources = sorted(Path(KERNELS, "src").iterdir())
setup(
    ext_modules=[
        Extension(
            "sglang_multiverse.kernels.cpu.multiverse_cpu",
            sources=[str(path) for path in sources if path.suffix == ".cpp"],
            depends=[str(path) for path in sources if path.suffix == ".h"],
        )
    ],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": PlatformWheel},
)
