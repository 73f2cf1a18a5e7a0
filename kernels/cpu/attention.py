"""Attention over paged KV on a CPU; `kernels.reference` says what it must return.

A token's result has the same bits alone and in a batch, decoded and as part of an extend, and
whether or not it shares what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import byref
from dataclasses import replace

import torch

from ..grouping import Link
from ..inputs import KernelInputError, check_attention, output_like, softmax_scale
from . import library as lib
from .rows import Rows, Shared

STEP = 16  # head dims are multiples of it


def attend(
    q: torch.Tensor,
    k_buffer: torch.Tensor,
    v_buffer: torch.Tensor,
    rows: Rows,
    *,
    sm_scale: float | None = None,
    logit_cap: float = 0.0,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Causal attention of each sequence's last tokens, less what is hidden from them.

    Args:
        q: [tokens, heads, d], of any float dtype, `d` a multiple of 16. Computed in fp32.
        k_buffer: fp32 or bf16 [slots, kv_heads, d]; `heads` is a multiple of `kv_heads`.
        v_buffer: [slots, kv_heads, dv].
        rows: the sequences.
        sm_scale: factor of the scores; 1/√d if not given.
        logit_cap: scores become `cap · tanh(score / cap)`; 0 is none.
        out: [tokens, heads, dv] to write to, of `q`'s dtype.

    Raises:
        KernelInputError: an argument has a wrong shape, dtype or device.
        LibraryError: there is no compiled library.
    """
    check_attention(q[:0].to(k_buffer.dtype), k_buffer, v_buffer, logit_cap)
    if q.device.type != "cpu":
        raise KernelInputError(f"q: is on {q.device}; allowed is the CPU")
    heads = heads_struct(q.shape[1], k_buffer, v_buffer, softmax_scale(q, sm_scale), logit_cap)
    out = output_like(q, v_buffer, out)
    if len(q) == 0:
        return out
    direct = out.dtype == torch.float32 and out.stride(1) == out.shape[2]
    result = out if direct else torch.empty(out.shape, dtype=torch.float32)
    queries = q.float()
    if queries.stride(1) != queries.shape[2]:
        queries = queries.contiguous()
    call = lib.Attention(
        heads,
        cache_struct(k_buffer, v_buffer),
        rows.struct(),
        queries.data_ptr(),
        result.data_ptr(),
        queries.stride(0),
        result.stride(0),
    )
    lib.library().mv_attend(byref(call))
    return out if direct else out.copy_(result)


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
) -> torch.Tensor:
    """`extend.extend_attention` with the same arguments; `max_len_extend` is not needed."""
    del max_len_extend
    rows = Rows.of_indices(len(q), qo_indptr, kv_indptr, kv_indices, hidden)
    return attend(q, k_buffer, v_buffer, rows, sm_scale=sm_scale, logit_cap=logit_cap, out=out)


def decode_attention(
    q: torch.Tensor,
    k_buffer: torch.Tensor,
    v_buffer: torch.Tensor,
    kv_indptr: torch.Tensor,
    kv_indices: torch.Tensor,
    chains: Sequence[Sequence[Link]] = (),
    *,
    sm_scale: float | None = None,
    logit_cap: float = 0.0,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """`shared_prefix.shared_prefix_decode`, with the chains that its tables are made of."""
    qo_indptr = torch.arange(len(q) + 1, dtype=torch.int32)
    rows = Rows.of_indices(len(q), qo_indptr, kv_indptr, kv_indices)
    group = q.shape[1] // k_buffer.shape[1]
    rows = replace(rows, shared=Shared.of_chains(chains, len(q), group))
    return attend(q, k_buffer, v_buffer, rows, sm_scale=sm_scale, logit_cap=logit_cap, out=out)


def heads_struct(
    heads: int, k_buffer: torch.Tensor, v_buffer: torch.Tensor, scale: float, cap: float
) -> lib.Heads:
    """Raises `KernelInputError` for a dtype or head dim that the kernels do not have."""
    for name, buffer in (("k_buffer", k_buffer), ("v_buffer", v_buffer)):
        if buffer.dtype not in (torch.float32, torch.bfloat16):
            raise KernelInputError(
                f"{name}: is {buffer.dtype}; allowed are torch.float32, torch.bfloat16"
            )
        if buffer.shape[2] % STEP:
            raise KernelInputError(
                f"{name}: head dim {buffer.shape[2]}; allowed are multiples of {STEP}"
            )
    return lib.Heads(
        heads,
        k_buffer.shape[1],
        k_buffer.shape[2],
        v_buffer.shape[2],
        lib.KINDS[k_buffer.dtype],
        scale,
        cap,
    )


def cache_struct(k_buffer: torch.Tensor, v_buffer: torch.Tensor) -> lib.Cache:
    return lib.Cache(
        k_buffer.data_ptr(), v_buffer.data_ptr(), *k_buffer.stride()[:2], *v_buffer.stride()[:2]
    )
