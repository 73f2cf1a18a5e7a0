"""How large programs are, by head dim, dtype and card.

Chosen so that nothing spills and shared memory suffices on sm_80, sm_90 and sm_100, which the
compile tests hold. Not tuned on a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from triton import knobs
from triton.runtime import driver

# What fills a tile's rows: a tensor core takes 16 at least.
SMALLEST = 16


class Tile(NamedTuple):
    """`m` queries by `n` keys, powers of two from 16; `warps` and pipeline `stages` of Triton."""

    m: int
    n: int
    warps: int
    stages: int


def _has_wide_products() -> bool:
    """Whether the card multiplies from shared memory (sm_90, sm_100): room in the registers."""
    if knobs.runtime.interpret:
        return False
    arch = driver.active.get_current_target().arch
    return isinstance(arch, int) and 90 <= arch < 120


def _rows(queries: int, most: int) -> int:
    return min(most, max(SMALLEST, triton.next_power_of_2(queries)))


def extend_tile(q: torch.Tensor, queries: int) -> Tile:
    """For `q` [tokens, heads, d], at most `queries` (tokens times heads per KV head) a sequence."""
    d = q.shape[2]
    if q.dtype == torch.float32:
        return Tile(_rows(queries, 64 if d <= 64 else 32 if d <= 128 else 16), 16, 8, 2)
    if d > 128:
        m, n = (64, 32) if _has_wide_products() else (32, 64)
        return Tile(_rows(queries, m), n, 8, 3)
    if _has_wide_products():
        m = _rows(queries, 128)
        return Tile(m, 64 if m >= 64 else 32, 8 if m >= 64 else 4, 3)
    m = _rows(queries, 128 if d <= 64 else 64)
    return Tile(m, 32, 8 if m >= 64 else 4, 3)


def decode_tile(q: torch.Tensor, queries: int) -> Tile:
    """For programs of `queries` queries (rows times heads per KV head)."""
    m = _rows(queries, 128)
    if q.dtype == torch.float32:
        return Tile(m, 16, 8, 2)
    if q.shape[2] > 128:
        return Tile(m, 32, 8, 3)
    if m < 64:
        return Tile(m, 64, 4, 3)
    return Tile(m, 64 if m == 64 or _has_wide_products() else 32, 8, 3)


def rows_per_piece(dtype: torch.dtype, head_dim: int, heads: int, kv_heads: int) -> int:
    """`grouping.Capacity.rows_per_piece`: how many rows a prefix program can stack; 1 at least."""
    if dtype == torch.float32:
        stacked = 64 if head_dim <= 64 else 32 if head_dim <= 128 else 16
    else:
        stacked = 128 if head_dim <= 128 else 64
    return max(1, stacked * kv_heads // heads)


def suffix_splits(q: torch.Tensor, kv_heads: int) -> int:
    """How many programs share a row's suffix, so that a small batch fills the card twice."""
    if not q.is_cuda:
        return 4
    processors = torch.cuda.get_device_properties(q.device).multi_processor_count
    wanted = -(-2 * processors // (q.shape[0] * kv_heads))
    return min(32, triton.next_power_of_2(wanted))
