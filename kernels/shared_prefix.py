"""Attention of one new token per row, where rows that share a prefix read it together.

Three launches, each of a size that the tables' capacity and the batch fix, and none waits for
the host, so a CUDA graph may hold them:

    prefix   a program per (piece, KV head): the queries of all its rows, stacked, over a part of
             their prefix; the KV is read once for all of them
    suffix   a program per (row, KV head, split): the row's query over a part of its own KV
    merge    a program per (row, head): the row's softmax states become one

Without tables, only the last two run, and this is plain split-KV decode.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton

from .decode import attend, merge
from .inputs import (
    KernelInputError,
    check_attention,
    check_device,
    check_indices,
    output_like,
    softmax_scale,
)
from .prefix_tables import PrefixTables
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

    def launch(grid: tuple[int, ...], queries: int, *, prefix: bool) -> None:
        """One launch of `attend`, whose programs have up to `queries` queries."""
        used = tile or decode_tile(q, queries)
        attend[grid](
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
        launch((prefixes.capacity.pieces, kv_heads, 1), stacked, prefix=True)
    launch((rows, kv_heads, workspace.splits), group, prefix=False)
    merge[(rows, heads)](
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
