"""How large a program's tiles are, by head dim, dtype and card.

Chosen so that nothing spills and shared memory suffices on sm_80, sm_90 and sm_100, which the
compile tests hold; not tuned on a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch


class Tile(NamedTuple):
    """`m` queries by `n` keys, powers of two from 16; `warps` and pipeline `stages` of Triton."""

    m: int
    n: int
    warps: int
    stages: int


def extend_tile(q: torch.Tensor, queries: int) -> Tile:
    """For `q` [tokens, heads, d], at most `queries` (tokens times heads per KV head) a sequence."""
    wide = q.shape[2] > 128
    if q.dtype == torch.float32:
        largest = Tile(32, 32, 8, 1) if wide else Tile(64, 32, 8, 2)
    elif wide:
        largest = Tile(64, 64, 8, 2)
    else:
        largest = Tile(128, 64, 8, 2)
    m = min(largest.m, max(16, 1 << (max(queries, 1) - 1).bit_length()))
    return largest._replace(m=m, warps=largest.warps if m >= 64 else 4)


def decode_tile(q: torch.Tensor, queries: int) -> Tile:
    """For programs of up to `queries` queries (rows times heads per KV head)."""
    m = max(16, 1 << (max(queries, 1) - 1).bit_length())
    return Tile(m, 32 if q.dtype == torch.float32 or q.shape[2] > 128 else 64, 4 if m < 64 else 8, 2)


def suffix_splits(q: torch.Tensor, kv_heads: int) -> int:
    """How many programs share a row's suffix, so that a small batch fills the card twice."""
    if not q.is_cuda:
        return 4
    processors = torch.cuda.get_device_properties(q.device).multi_processor_count
    wanted = -(-2 * processors // (q.shape[0] * kv_heads))
    return min(32, 1 << max(wanted - 1, 0).bit_length())
