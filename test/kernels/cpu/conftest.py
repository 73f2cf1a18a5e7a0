"""Every test runs with each instruction set that this processor has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sglang_multiverse.kernels.cpu import library as lib


@pytest.fixture(params=["baseline", "avx2", "avx512"], autouse=True)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    reason = lib.available()
    if reason is not None:
        pytest.skip(reason)
    best = lib.instruction_set()
    try:
        lib.use_instruction_set(request.param)
    except lib.LibraryError as error:
        pytest.skip(str(error))
    yield request.param
    lib.use_instruction_set(best)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    lib.set_threads(request.param)
    yield request.param
    lib.set_threads(1)
