"""The kernels compile for the cards they are for, and at the default tiles no register spills."""

from __future__ import annotations

import pytest
import torch
from compile_only import SHARED, Compiled, compile_only

from sglang_multiverse.kernels.extend import extend_attention
from sglang_multiverse.kernels.grouping import Capacity
from sglang_multiverse.kernels.prefix_tables import PrefixTables
from sglang_multiverse.kernels.shared_prefix import Workspace, shared_prefix_decode
from sglang_multiverse.kernels.tiles import rows_per_piece

# Heads of Qwen2.5-7B, SmolLM2-135M, Gemma-2-9B and, in fp32, of parity runs.
SHAPES = [
    (torch.bfloat16, 128, 28, 4),
    (torch.bfloat16, 64, 9, 3),
    (torch.float16, 256, 16, 8),
    (torch.float32, 64, 9, 3),
    (torch.float32, 128, 28, 4),
    (torch.float32, 256, 16, 8),
]
shapes = pytest.mark.parametrize(
    ("dtype", "d", "heads", "kv_heads"),
    [pytest.param(*shape, marks=[pytest.mark.slow] * (i > 0)) for i, shape in enumerate(SHAPES)],
    ids=lambda value: str(value).removeprefix("torch."),
)
archs = pytest.mark.parametrize("arch", sorted(SHARED))


def empty(*shape: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def extend(
    dtype: torch.dtype, d: int, heads: int, kv_heads: int, *, new: int, cap: float, depth: int
) -> None:
    extend_attention(
        empty(4 * new, heads, d, dtype=dtype),
        empty(9999, kv_heads, d, dtype=dtype),
        empty(9999, kv_heads, d, dtype=dtype),
        empty(5),
        empty(5),
        empty(9999, dtype=torch.int64),
        empty(4 * new, depth, 2),
        new,
        logit_cap=cap,
    )


def decode(dtype: torch.dtype, d: int, heads: int, kv_heads: int, *, rows: int, cap: float) -> None:
    stacked = min(rows, rows_per_piece(dtype, d, heads, kv_heads))
    prefixes = PrefixTables.allocate(Capacity(64, 64, 128, 8, stacked), "meta")
    q = empty(64, heads, d, dtype=dtype)
    kv = empty(9999, kv_heads, d, dtype=dtype)
    workspace = Workspace.allocate(q, kv, kv, prefixes, splits=8)
    indices = empty(9999, dtype=torch.int64)
    shared_prefix_decode(q, kv, kv, empty(65), indices, prefixes, workspace, logit_cap=cap)


def fit(compiled: list[Compiled], arch: int) -> None:
    for kernel in compiled:
        print(f"sm_{arch}", kernel)  # `pytest -s`, or -rP: the report
        assert kernel.spilled == 0, kernel
        assert kernel.shared <= SHARED[arch], kernel


@archs
@shapes
def test_extend(arch: int, dtype: torch.dtype, d: int, heads: int, kv_heads: int) -> None:
    with compile_only(arch) as compiled:
        extend(dtype, d, heads, kv_heads, new=2048, cap=0.0, depth=2)
    assert [kernel.name for kernel in compiled] == ["_extend"]
    fit(compiled, arch)


@archs
@shapes
def test_shared_prefix(arch: int, dtype: torch.dtype, d: int, heads: int, kv_heads: int) -> None:
    with compile_only(arch) as compiled:
        decode(dtype, d, heads, kv_heads, rows=64, cap=0.0)
    assert [kernel.name for kernel in compiled] == ["attend", "attend", "merge"]
    fit(compiled, arch)


@pytest.mark.slow
@archs
@pytest.mark.parametrize(("dtype", "d", "heads", "kv_heads"), SHAPES[:2])
def test_other_sizes(arch: int, dtype: torch.dtype, d: int, heads: int, kv_heads: int) -> None:
    """Headers of branches, deep blocks, plain requests, few rows a group; capped scores."""
    with compile_only(arch) as compiled:
        for new, depth in ((5, 2), (2048, 0), (2048, 3)):
            extend(dtype, d, heads, kv_heads, new=new, cap=30.0, depth=depth)
        for rows in (2, 9):
            decode(dtype, d, heads, kv_heads, rows=rows, cap=30.0)
    fit(compiled, arch)
