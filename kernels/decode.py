"""The programs of `shared_prefix`: softmax states over parts of rows, and their merge."""

# ruff: noqa: N803  (compile-time arguments are upper-case in Triton kernels everywhere)

from __future__ import annotations

import triton
import triton.language as tl

from .softmax import absorb, normalised, scaled_scores


@triton.jit
def attend(
    q_ptr,
    k_ptr,
    v_ptr,
    states_ptr,
    lse_ptr,
    kv_indptr,
    kv_indices,
    pieces,
    members,
    suffix_start,
    sm_scale,
    q_stride_row,
    q_stride_head,
    k_stride_slot,
    k_stride_head,
    v_stride_slot,
    v_stride_head,
    states_stride_row,
    states_stride_head,
    states_stride_slot,
    lse_stride_row,
    lse_stride_head,
    PREFIX: tl.constexpr,
    SPLITS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEAD_DIM_V: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    LOGIT_CAP: tl.constexpr,
):
    """Write the states of one piece's rows over its part of their prefix, or of one row's split."""
    kv_head = tl.program_id(1)
    # Query i of the tile is head `i % GROUP` of the program's row `i // GROUP`.
    i = tl.arange(0, BLOCK_M)
    if PREFIX:
        piece = pieces + tl.program_id(0) * 5
        begin = tl.load(piece)
        end = tl.load(piece + 1)
        if begin == end:
            return
        live = i < (end - begin) * GROUP
        rows = tl.load(members + begin + i // GROUP, mask=live, other=0).to(tl.int64)
        slots = kv_indices + tl.load(kv_indptr + tl.load(members + begin))
        start = tl.load(piece + 2)
        stop = tl.load(piece + 3)
        to = SPLITS + tl.load(piece + 4)
    else:
        row = tl.program_id(0)
        live = i < GROUP
        rows = row.to(tl.int64) + tl.zeros([BLOCK_M], dtype=tl.int64)
        kv_begin = tl.load(kv_indptr + row)
        length = (tl.load(kv_indptr + row + 1) - kv_begin).to(tl.int32)
        slots = kv_indices + kv_begin
        own = 0
        if suffix_start is not None:
            own = tl.load(suffix_start + row)
        # Two tiles of keys at least, so that a short suffix is not many states.
        share = tl.cdiv(tl.cdiv(tl.maximum(length - own, 0), SPLITS), BLOCK_N)
        share = tl.maximum(share, 2) * BLOCK_N
        to = tl.program_id(2)
        start = own + to * share
        stop = tl.minimum(start + share, length)

    heads = kv_head * GROUP + i % GROUP
    d = tl.arange(0, BLOCK_D)
    dv = tl.arange(0, BLOCK_DV)
    q = tl.load(
        q_ptr + (rows * q_stride_row + heads * q_stride_head)[:, None] + d[None, :],
        mask=live[:, None] & (d < HEAD_DIM)[None, :],
        other=0.0,
    )
    k_base = k_ptr + kv_head * k_stride_head + d[:, None]
    v_base = v_ptr + kv_head * v_stride_head + dv[None, :]
    acc = tl.zeros([BLOCK_M, BLOCK_DV], dtype=tl.float32)
    peak = tl.full([BLOCK_M], float("-inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_M], dtype=tl.float32)
    for first in range(start, stop, BLOCK_N):
        keys = first + tl.arange(0, BLOCK_N)
        there = keys < stop
        slot = tl.load(slots + keys, mask=there, other=0).to(tl.int64)
        k = tl.load(
            k_base + (slot * k_stride_slot)[None, :],
            mask=there[None, :] & (d < HEAD_DIM)[:, None],
            other=0.0,
        )
        scores = scaled_scores(q, k, sm_scale, LOGIT_CAP)
        scores = tl.where(there[None, :], scores, float("-inf"))
        v = tl.load(
            v_base + (slot * v_stride_slot)[:, None],
            mask=there[:, None] & (dv < HEAD_DIM_V)[None, :],
            other=0.0,
        )
        acc, peak, total = absorb(acc, peak, total, scores, v)

    # A state without keys is known by its lse; what `states` holds there is never read.
    at = rows * states_stride_row + heads * states_stride_head + to * states_stride_slot
    tl.store(
        states_ptr + at[:, None] + dv[None, :],
        normalised(acc, total),
        mask=(live & (total > 0))[:, None] & (dv < HEAD_DIM_V)[None, :],
    )
    tl.store(
        lse_ptr + rows * lse_stride_row + heads * lse_stride_head + to,
        peak + tl.log2(tl.where(total > 0, total, 1.0)),
        mask=live,
    )


@triton.jit
def merge(
    states_ptr,
    lse_ptr,
    prefix_states,
    out_ptr,
    states_stride_row,
    states_stride_head,
    states_stride_slot,
    lse_stride_row,
    lse_stride_head,
    out_stride_row,
    out_stride_head,
    SPLITS: tl.constexpr,
    HEAD_DIM_V: tl.constexpr,
    BLOCK_DV: tl.constexpr,
    BLOCK_S: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    count = SPLITS
    if prefix_states is not None:
        count += tl.load(prefix_states + row)
    states = states_ptr + row * states_stride_row + head * states_stride_head
    lses = lse_ptr + row * lse_stride_row + head * lse_stride_head
    dv = tl.arange(0, BLOCK_DV)
    peak = float("-inf")
    total = 0.0
    acc = tl.zeros([BLOCK_DV], dtype=tl.float32)
    for first in range(0, count, BLOCK_S):
        s = first + tl.arange(0, BLOCK_S)
        lse = tl.load(lses + s, mask=s < count, other=float("-inf"))
        seen = lse > float("-inf")
        out = tl.load(
            states + (s * states_stride_slot)[:, None] + dv[None, :],
            mask=seen[:, None] & (dv < HEAD_DIM_V)[None, :],
            other=0.0,
        )
        higher = tl.maximum(peak, tl.max(lse, 0))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(lse - base)
        fade = tl.exp2(peak - base)
        acc = acc * fade + tl.sum(weights[:, None] * out, 0)
        total = total * fade + tl.sum(weights, 0)
        peak = higher
    tl.store(
        out_ptr + row * out_stride_row + head * out_stride_head + dv,
        (acc / tl.where(total == 0.0, 1.0, total)).to(out_ptr.dtype.element_ty),
        mask=dv < HEAD_DIM_V,
    )
