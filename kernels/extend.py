"""Attention of new tokens over paged KV, where a token of a branch does not see its siblings.

A query's hidden keys are a few intervals of row indices (`structure.layout`). One program
computes one tile of queries for one KV head, all query heads that share it stacked. What its
tiles of keys cost:

    0 … first hidden key or first new token   no mask
    … last query of the tile                  masked; tiles that an interval hides from every
                                              query of the tile are stepped over, not read
"""

# ruff: noqa: N803  (compile-time arguments are upper-case in Triton kernels everywhere)

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .inputs import (
    KernelInputError,
    check_attention,
    check_device,
    check_indices,
    output_like,
    softmax_scale,
)
from .softmax import absorb, normalised, scaled_scores
from .tiles import Tile, extend_tile


def extend_attention(
    q: torch.Tensor,
    k_buffer: torch.Tensor,
    v_buffer: torch.Tensor,
    qo_indptr: torch.Tensor,
    kv_indptr: torch.Tensor,
    kv_indices: torch.Tensor,
    hidden: torch.Tensor,
    max_len_extend: int,
    *,
    sm_scale: float | None = None,
    logit_cap: float = 0.0,
    out: torch.Tensor | None = None,
    tile: Tile | None = None,
) -> torch.Tensor:
    """Causal attention of the last tokens of each sequence, less what is hidden from them.

    Sequence `b` has the queries `[qo_indptr[b], qo_indptr[b + 1])` and the keys in the slots
    `kv_indices[kv_indptr[b] : kv_indptr[b + 1]]`, in row order; its queries are its last rows,
    and their own KV is in the buffers already. Row `r` sees the rows `j <= r` that are in none
    of its intervals. A query that sees nothing gets zeros.

    Args:
        q: [n_q, heads, d]; fp16, bf16 or fp32, `d` from 16 to 256.
        k_buffer: [slots, kv_heads, d], as `q`; `heads` is a multiple of `kv_heads`.
        v_buffer: [slots, kv_heads, dv].
        qo_indptr: int32 or int64 [sequences + 1].
        kv_indptr: int32 or int64 [sequences + 1].
        kv_indices: int32 or int64 [≥ kv_indptr[-1]].
        hidden: int32 [n_q, depth, 2], half-open intervals of row indices; `lo >= hi` is none.
            `depth` may be 0.
        max_len_extend: the largest number of queries of a sequence, known on the host.
        sm_scale: factor of the scores; 1/√d if not given.
        logit_cap: scores become `cap · tanh(score / cap)`; 0 is none.
        out: [n_q, heads, dv] to write to, of `q`'s dtype.
        tile: sizes of the program, if not the default ones.

    Raises:
        KernelInputError: an argument has a wrong shape, dtype or device.
    """
    check_attention(q, k_buffer, v_buffer, logit_cap)
    check_device(q)
    sequences = qo_indptr.shape[0] - 1
    check_indices("qo_indptr", qo_indptr)
    check_indices("kv_indptr", kv_indptr, sequences + 1)
    check_indices("kv_indices", kv_indices)
    if hidden.dtype != torch.int32 or hidden.dim() != 3 or hidden.shape[::2] != (len(q), 2):
        raise KernelInputError(
            f"hidden: {hidden.dtype} {tuple(hidden.shape)}; allowed is int32 [{len(q)}, depth, 2]"
        )
    if not hidden.is_contiguous():
        raise KernelInputError("hidden: must be contiguous")
    out = output_like(q, v_buffer, out)
    group = q.shape[1] // k_buffer.shape[1]
    if tile is None:
        tile = extend_tile(q, max_len_extend * group)
    if len(q) == 0 or sequences == 0:
        return out
    # Tiles first: the last ones of a sequence, which take longest, are started first.
    grid = (triton.cdiv(max_len_extend * group, tile.m), k_buffer.shape[1], sequences)
    _extend[grid](
        q,
        k_buffer,
        v_buffer,
        out,
        qo_indptr,
        kv_indptr,
        kv_indices,
        hidden,
        softmax_scale(q, sm_scale),
        *q.stride()[:2],
        *k_buffer.stride()[:2],
        *v_buffer.stride()[:2],
        *out.stride()[:2],
        GROUP=group,
        DEPTH=hidden.shape[1],
        HEAD_DIM=q.shape[2],
        HEAD_DIM_V=v_buffer.shape[2],
        BLOCK_M=tile.m,
        BLOCK_N=tile.n,
        BLOCK_D=triton.next_power_of_2(q.shape[2]),
        BLOCK_DV=triton.next_power_of_2(v_buffer.shape[2]),
        LOGIT_CAP=float(logit_cap),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return out


@triton.jit
def _visible(rows, keys, hidden, tokens, live, DEPTH: tl.constexpr):
    """bool [m, n]: which keys the queries see."""
    visible = keys[None, :] <= rows[:, None]
    for d in tl.static_range(DEPTH):
        lo = tl.load(hidden + (tokens * DEPTH + d) * 2, mask=live, other=0)
        hi = tl.load(hidden + (tokens * DEPTH + d) * 2 + 1, mask=live, other=0)
        visible &= (keys[None, :] < lo[:, None]) | (keys[None, :] >= hi[:, None])
    return visible


@triton.jit
def _extend(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    qo_indptr,
    kv_indptr,
    kv_indices,
    hidden,
    sm_scale,
    q_stride_token,
    q_stride_head,
    k_stride_slot,
    k_stride_head,
    v_stride_slot,
    v_stride_head,
    out_stride_token,
    out_stride_head,
    GROUP: tl.constexpr,
    DEPTH: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_DIM_V: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    LOGIT_CAP: tl.constexpr,
):
    sequence = tl.program_id(2)
    kv_head = tl.program_id(1)
    q_begin = tl.load(qo_indptr + sequence)
    q_len = (tl.load(qo_indptr + sequence + 1) - q_begin).to(tl.int32)
    start = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_M
    if start >= q_len * GROUP:
        return
    kv_begin = tl.load(kv_indptr + sequence)
    kv_len = (tl.load(kv_indptr + sequence + 1) - kv_begin).to(tl.int32)
    slots = kv_indices + kv_begin

    # Query i of the tile is head `i % GROUP` of token `i // GROUP`.
    i = start + tl.arange(0, BLOCK_M)
    live = i < q_len * GROUP
    first_row = kv_len - q_len + start // GROUP
    last_row = kv_len - q_len + tl.minimum((start + BLOCK_M - 1) // GROUP, q_len - 1)
    rows = kv_len - q_len + i // GROUP
    tokens = q_begin.to(tl.int64) + i // GROUP
    heads = kv_head * GROUP + i % GROUP
    d = tl.arange(0, BLOCK_D)
    dv = tl.arange(0, BLOCK_DV)
    q = tl.load(
        q_ptr + (tokens * q_stride_token + heads * q_stride_head)[:, None] + d[None, :],
        mask=live[:, None] & (d < HEAD_DIM)[None, :],
        other=0.0,
    )
    k_base = k_ptr + kv_head * k_stride_head + d[:, None]
    v_base = v_ptr + kv_head * v_stride_head + dv[None, :]

    # Tiles of keys: [0, plain) are seen by every query; of the others, [begin, end) of each level
    # are seen by none. The loop counts the tiles that are left when these are taken out, and adds
    # the length of each gap that it has passed. Gaps are made disjoint and ascending (a level
    # that is not, is skipped in part), so any intervals give the right result.
    tiles = tl.cdiv(last_row + 1, BLOCK_N)
    seen_by_all = first_row + 1
    skips = ()
    passed = 0
    skipped_to = 0
    for level in tl.static_range(DEPTH):
        lo = tl.load(hidden + (tokens * DEPTH + level) * 2, mask=live, other=0)
        hi = tl.load(hidden + (tokens * DEPTH + level) * 2 + 1, mask=live, other=2147483647)
        some = live & (lo < hi)
        seen_by_all = tl.minimum(seen_by_all, tl.min(tl.where(some, lo, seen_by_all), 0))
        begin = tl.maximum(tl.cdiv(tl.max(lo, 0), BLOCK_N), skipped_to)
        end = tl.minimum(tl.min(hi, 0) // BLOCK_N, tiles)
        length = tl.maximum(end - begin, 0)
        # Triton has no starred tuples, and mypy none that grow.
        skips = skips + ((begin - passed, length),)  # type: ignore[assignment]  # noqa: RUF005
        passed += length
        skipped_to = tl.where(length > 0, end, skipped_to)
    plain = tl.maximum(seen_by_all, 0) // BLOCK_N

    acc = tl.zeros([BLOCK_M, BLOCK_DV], dtype=tl.float32)
    peak = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_M], dtype=tl.float32)
    for step in range(plain):
        slot = tl.load(slots + step * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
        k = tl.load(
            k_base + (slot * k_stride_slot)[None, :], mask=(d < HEAD_DIM)[:, None], other=0.0
        )
        scores = scaled_scores(q, k, sm_scale, LOGIT_CAP)
        v = tl.load(
            v_base + (slot * v_stride_slot)[:, None], mask=(dv < HEAD_DIM_V)[None, :], other=0.0
        )
        acc, peak, total = absorb(acc, peak, total, scores, v)
    for step in range(plain, tiles - passed):
        tile = step
        for level in tl.static_range(DEPTH):
            tile += tl.where(step >= skips[level][0], skips[level][1], 0)
        keys = tile * BLOCK_N + tl.arange(0, BLOCK_N)
        there = keys <= last_row
        slot = tl.load(slots + keys, mask=there, other=0).to(tl.int64)
        k = tl.load(
            k_base + (slot * k_stride_slot)[None, :],
            mask=there[None, :] & (d < HEAD_DIM)[:, None],
            other=0.0,
        )
        scores = scaled_scores(q, k, sm_scale, LOGIT_CAP)
        visible = _visible(rows, keys, hidden, tokens, live, DEPTH)
        scores = tl.where(visible, scores, float("-inf"))
        v = tl.load(
            v_base + (slot * v_stride_slot)[:, None],
            mask=there[:, None] & (dv < HEAD_DIM_V)[None, :],
            other=0.0,
        )
        acc, peak, total = absorb(acc, peak, total, scores, v)

    tl.store(
        out_ptr + (tokens * out_stride_token + heads * out_stride_head)[:, None] + dv[None, :],
        normalised(acc, total).to(out_ptr.dtype.element_ty),
        mask=live[:, None] & (dv < HEAD_DIM_V)[None, :],
    )
