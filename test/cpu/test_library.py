"""The compiled library: where it is missing, another, or cannot be compiled."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sglang_multiverse.kernels.cpu import build, library


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What is loaded here must not be what others get."""
    library.library.cache_clear()
    yield
    library.library.cache_clear()


def test_without_a_library_the_reason_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(library, "HERE", tmp_path)
    reason = library.available()
    assert reason is not None
    assert "install a C++ compiler" in reason
    from sglang_multiverse.cpu import registry as ours

    ours.register_attention_backend()
    assert ours.default_attention_backend() == "torch_native"


def test_what_is_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / library.LIBRARY).write_text("no library")
    monkeypatch.setattr(library, "HERE", tmp_path)
    with pytest.raises(library.LibraryError, match=library.LIBRARY):
        library.library()


def test_another_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    if library.available() is not None:
        pytest.skip(str(library.available()))
    library.library.cache_clear()
    monkeypatch.setattr(library, "ABI", 999)
    with pytest.raises(library.LibraryError, match="not 999; build it again"):
        library.library()


def test_threads_have_a_range() -> None:
    if library.available() is not None:
        pytest.skip(str(library.available()))
    with pytest.raises(library.LibraryError, match="threads: 0; allowed are 1 to 256"):
        library.set_threads(0)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.CompileError, match="no C\\+\\+ compiler: install g\\+\\+ or set CXX"):
        build.compile_library(tmp_path / "x.so")


def test_what_the_compiler_says_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "python3 -c 'import sys; sys.exit(str(sys.argv))'")
    with pytest.raises(build.CompileError, match=r"kernels\.cpp"):
        build.compile_library(tmp_path / "x.so")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="has one instruction set")
@pytest.mark.skipif(not shutil.which("nm"), reason="no binutils")
def test_nothing_made_for_one_processor_can_be_taken_for_others(tmp_path: Path) -> None:
    """Of templates that two files instantiate the linker keeps one, perhaps with AVX-512 in it."""
    made = tmp_path / "avx512.o"
    build.compile_object("kernels.cpp", "avx512", made)
    command = ["nm", "--defined-only", str(made)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    shared = [line for line in lines if line.split()[1] in "WVu"]
    assert shared
    assert not [line for line in shared if "6avx512" not in line]  # the namespace, mangled
