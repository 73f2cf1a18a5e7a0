"""Tests that run kernels: on a GPU where there is one, else in Triton's interpreter.

`TRITON_INTERPRET=1` must be set before Triton is imported, and then holds for all of the
process and its children: SGLang's kernels would be interpreted as well. So without a GPU these
tests are invisible to an ordinary run, and `test_interpreted.py` runs them in processes of
their own:

    TRITON_INTERPRET=1 pytest test/kernels/arithmetic
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from kernel_cases import DEVICE

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = [] if INTERPRETED or DEVICE == "cuda" else ["*"]


@pytest.fixture(autouse=True, scope="session")
def bf16_products() -> Any:
    """The interpreter keeps bf16 as bit patterns, and `dot` multiplies these as integers."""
    if not INTERPRETED:
        yield
        return
    import triton.language as tl
    from triton.runtime import interpreter

    builder = interpreter.InterpreterBuilder
    original = builder.create_dot

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        def widen(x: Any) -> Any:
            return self.cast_impl(x, tl.float32) if x.dtype.scalar == tl.bfloat16 else x

        return original(self, widen(a), widen(b), *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "create_dot", create_dot)
        yield
