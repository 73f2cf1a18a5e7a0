"""Compiles the kernels into one shared library, which chooses for the processor it runs on.

Run as a script it does so for a checkout: what was compiled from the same sources by the same
compiler is taken from the cache. A machine without a compiler serves without the library.

It imports nothing but the standard library, because `setup.py` and `scripts/env.sh` run it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = "libmultiverse_cpu.so"

_FLAGS = (
    "-O3 -std=c++17 -fPIC -pthread -fvisibility=hidden -fno-math-errno -fno-trapping-math "
    "-Wall -Wextra -Wno-psabi -Wno-ignored-attributes -Wno-unknown-warning-option "
    "-Wno-maybe-uninitialized"  # GCC 12, about its own intrinsics
).split()
_INSTRUCTION_SETS = {
    "baseline": "",
    "avx2": "-mavx2 -mfma",
    "avx512": "-mavx2 -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl",
}


class CompileError(RuntimeError):
    """There is no compiler, or it did not accept the sources."""


def compiler() -> list[str]:
    """`$CXX`, or the first C++ compiler on the path.

    Raises:
        CompileError: there is none.
    """
    asked = shlex.split(os.environ.get("CXX", ""))
    for command in (asked,) if asked else (["c++"], ["g++"], ["clang++"]):
        if shutil.which(command[0]):
            return command
    raise CompileError("no C++ compiler: install g++ or set CXX")


def compile_library(target: Path) -> None:
    """Compile `src/` into `target`.

    Raises:
        CompileError: with what the compiler said.
    """
    names = list(_INSTRUCTION_SETS) if platform.machine() in ("x86_64", "AMD64") else ["baseline"]
    with tempfile.TemporaryDirectory() as directory:
        jobs = [("kernels.cpp", name) for name in names] + [("pool.cpp", ""), ("api.cpp", "")]
        objects = [Path(directory) / f"{i}.o" for i in range(len(jobs))]
        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(compile_object, *zip(*jobs, strict=True), objects))
        target.parent.mkdir(parents=True, exist_ok=True)
        made = target.with_name(f".{target.name}.{os.getpid()}")
        _run([*compiler(), "-shared", "-pthread", *map(str, objects), "-o", str(made)])
        made.replace(target)


def compile_object(source: str, instruction_set: str, target: Path) -> None:
    """Compile one file of `src/`, for one instruction set if that is not empty.

    Raises:
        CompileError: with what the compiler said.
    """
    flags = _FLAGS
    if instruction_set:
        own = _INSTRUCTION_SETS[instruction_set].split()
        flags = [*flags, f"-DMV_ISA={instruction_set}", *own]
    _run([*compiler(), *flags, "-c", str(HERE / "src" / source), "-o", str(target)])


def _run(command: list[str]) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CompileError(f"{command[0]}: {error}") from error
    if result.returncode:
        raise CompileError(f"{shlex.join(command)}\n{result.stderr.strip()}")


def _key() -> str:
    """A digest of all that the library depends on."""
    digest = hashlib.sha256(platform.machine().encode())
    for path in (Path(__file__), *sorted((HERE / "src").iterdir())):
        digest.update(path.name.encode() + path.read_bytes())
    command = [*compiler(), "--version"]
    digest.update(subprocess.run(command, capture_output=True, check=False).stdout)
    return digest.hexdigest()[:12]


def main() -> None:
    here = HERE / LIBRARY
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        cached = cache / "sglang-multiverse" / f"cpu-{_key()}" / LIBRARY
        if not cached.exists():
            print("env: compiling the CPU kernels (seconds, once)", file=sys.stderr)
            compile_library(cached)
    except CompileError as error:
        here.unlink(missing_ok=True)
        print(f"env: no compiled CPU kernels: {error}", file=sys.stderr)
        return
    if here.resolve() != cached.resolve():
        here.unlink(missing_ok=True)
        here.symlink_to(cached)


if __name__ == "__main__":
    main()
