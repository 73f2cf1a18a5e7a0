"""Attention of one new token per row, where rows that share a prefix read it together.

Three launches, each of a size that the tables' capacity and the batch fix, and none waits for
the host, so a CUDA graph may hold them:

    prefix   a program per (piece, KV head): the queries of all its rows, stacked, over a part of
             their prefix; the KV is read once for all of them
    suffix   a program per (row, KV head, split): the row's query over a part of its own KV
    merge    a program per (row, head): the row's softmax states become one

Without tables, only the last two run, and this is plain split-KV decode.
"""

# ruff: noqa: N803  (compile-time arguments are upper-case in Triton kernels everywhere)

from __future__ import annotations

from dataclasses import dataclass

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
from .prefix_tables import PrefixTables
from .softmax import absorb, normalised, scaled_scores
from .tiles import Tile, decode_tile, rows_per_piece, suffix_splits


@dataclass(frozen=True, slots=True)
class Workspace:
    """Softmax states, for every layer the same memory.

    Attributes:
        out: fp32 [rows, heads, slots, dv]; a row's suffix splits first, then its prefix states.
        lse: fp32 [rows, heads, slots], log2 of the sum of 2^score; −inf where there was no key.
        splits: how many of the slots are suffix splits.
    """

    out: torch.Tensor
    lse: torch.Tensor
    splits: int

    @classmethod
    def allocate(
        cls,
        q: torch.Tensor,
        k_buffer: torch.Tensor,
        v_buffer: torch.Tensor,
        prefixes: PrefixTables | None,
        *,
        splits: int | None = None,
    ) -> Workspace:
        """For calls with tensors of these shapes, or with fewer rows."""
        rows, heads, _ = q.shape
        splits = splits or suffix_splits(q, k_buffer.shape[1])
        slots = splits + (prefixes.capacity.states if prefixes else 0)
        out = torch.empty(
            rows, heads, slots, v_buffer.shape[2], dtype=torch.float32, device=q.device
        )
        return cls(out, torch.empty(out.shape[:3], dtype=torch.float32, device=q.device), splits)


def shared_prefix_decode(
    q: torch.Tensor,
    k_buffer: torch.Tensor,
    v_buffer: torch.Tensor,
    kv_indptr: torch.Tensor,
    kv_indices: torch.Tensor,
    prefixes: PrefixTables | None = None,
    workspace: Workspace | None = None,
    *,
    sm_scale: float | None = None,
    logit_cap: float = 0.0,
    out: torch.Tensor | None = None,
    tile: Tile | None = None,
) -> torch.Tensor:
    """Attention of each row's newest token to all of the row; its KV is in the buffers already.

    Row `r` has the keys in the slots `kv_indices[kv_indptr[r] : kv_indptr[r + 1]]`, its own
    token's last. A row without keys gets zeros.

    Args:
        q: [rows, heads, d]; fp16, bf16 or fp32, `d` from 16 to 256.
        k_buffer: [slots, kv_heads, d], as `q`; `heads` is a multiple of `kv_heads`.
        v_buffer: [slots, kv_heads, dv].
        kv_indptr: int32 or int64 [rows + 1].
        kv_indices: int32 or int64 [≥ kv_indptr[-1]].
        prefixes: what the rows share. Of a group's shared part, only the slots that its first
            row names are read.
        workspace: made of these shapes; a new one if not given.
        sm_scale: factor of the scores; 1/√d if not given.
        logit_cap: scores become `cap · tanh(score / cap)`; 0 is none.
        out: [rows, heads, dv] to write to, of `q`'s dtype.
        tile: sizes of the programs, if not the default ones; `m` is not used.

    Raises:
        KernelInputError: an argument has a wrong shape, dtype or device.
    """
    check_attention(q, k_buffer, v_buffer, logit_cap)
    check_device(q)
    rows, heads, head_dim = q.shape
    check_indices("kv_indptr", kv_indptr, rows + 1)
    check_indices("kv_indices", kv_indices)
    kv_heads, head_dim_v = v_buffer.shape[1:]
    if prefixes is not None:
        stacked, most = (
            prefixes.capacity.rows_per_piece,
            rows_per_piece(q.dtype, head_dim, heads, kv_heads),
        )
        if prefixes.capacity.rows < rows:
            raise KernelInputError(f"prefixes: for {prefixes.capacity.rows} rows; q has {rows}")
        if stacked > most:
            raise KernelInputError(f"prefixes: {stacked} rows a piece; allowed are {most}")
    if workspace is None:
        workspace = Workspace.allocate(q, k_buffer, v_buffer, prefixes)
    states = workspace.out
    slots = workspace.splits + (prefixes.capacity.states if prefixes else 0)
    if (
        states.shape[0] < rows
        or states.shape[1::2] != (heads, head_dim_v)
        or states.shape[2] < slots
    ):
        raise KernelInputError(
            f"workspace: {tuple(states.shape)}; allowed is {(rows, heads, slots, head_dim_v)}, "
            "or more rows or slots"
        )
    out = output_like(q, v_buffer, out)
    if rows == 0:
        return out

    def attend(grid: tuple[int, ...], queries: int, *, prefix: bool) -> None:
        """One launch of `_attend`, whose programs have up to `queries` queries."""
        used = tile or decode_tile(q, queries)
        _attend[grid](
            q,
            k_buffer,
            v_buffer,
            states,
            workspace.lse,
            kv_indptr,
            kv_indices,
            prefixes and prefixes.pieces,
            prefixes and prefixes.members,
            prefixes and prefixes.suffix_start,
            softmax_scale(q, sm_scale),
            *q.stride()[:2],
            *k_buffer.stride()[:2],
            *v_buffer.stride()[:2],
            *states.stride()[:3],
            *workspace.lse.stride()[:2],
            PREFIX=prefix,
            SPLITS=workspace.splits,
            GROUP=heads // kv_heads,
            HEAD_DIM=head_dim,
            HEAD_DIM_V=head_dim_v,
            BLOCK_M=max(16, triton.next_power_of_2(queries)),
            BLOCK_N=used.n,
            BLOCK_D=triton.next_power_of_2(head_dim),
            BLOCK_DV=triton.next_power_of_2(head_dim_v),
            LOGIT_CAP=float(logit_cap),
            num_warps=used.warps,
            num_stages=used.stages,
        )

    group = heads // kv_heads
    if prefixes is not None and prefixes.capacity.pieces:
        stacked = prefixes.capacity.rows_per_piece * group
        attend((prefixes.capacity.pieces, kv_heads, 1), stacked, prefix=True)
    attend((rows, kv_heads, workspace.splits), group, prefix=False)
    _merge[(rows, heads)](
        states,
        workspace.lse,
        prefixes and prefixes.states,
        out,
        *states.stride()[:3],
        *workspace.lse.stride()[:2],
        *out.stride()[:2],
        SPLITS=workspace.splits,
        HEAD_DIM_V=head_dim_v,
        BLOCK_DV=triton.next_power_of_2(head_dim_v),
        BLOCK_S=8,
        num_warps=4,
    )
    return out


@triton.jit
def _attend(
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
        rows = row.to(tl.int64) + i // BLOCK_M
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
def _merge(
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
