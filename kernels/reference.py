"""What the kernels must return, in plain torch: slow, obvious, and on any device.

Computed in fp32, or in fp64 for fp64 tensors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .inputs import softmax_scale

if TYPE_CHECKING:
    from .prefix_tables import PrefixTables
    from .shared_prefix import Workspace


def _attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    visible: torch.Tensor,
    sm_scale: float,
    logit_cap: float,
) -> torch.Tensor:
    """`q` [n, heads, d] over `k`, `v` [m, kv_heads, …], where `visible` [n, m]; zeros for none."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    group = q.shape[1] // k.shape[1]
    k = k.to(dtype).repeat_interleave(group, 1)
    v = v.to(dtype).repeat_interleave(group, 1)
    scores = torch.einsum("nhd,mhd->hnm", q.to(dtype), k) * sm_scale
    if logit_cap > 0:
        scores = logit_cap * torch.tanh(scores / logit_cap)
    weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
    weights = weights.masked_fill(~visible.any(-1)[:, None], 0.0)
    return torch.einsum("hnm,mhd->nhd", weights, v)


def extend_attention_reference(
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
    """`extend.extend_attention`, with the same arguments; `max_len_extend` is not needed."""
    del max_len_extend
    if out is None:
        out = q.new_empty(*q.shape[:2], v_buffer.shape[2])
    scale = softmax_scale(q, sm_scale)
    for b in range(len(qo_indptr) - 1):
        first, last = int(qo_indptr[b]), int(qo_indptr[b + 1])
        slots = kv_indices[int(kv_indptr[b]) : int(kv_indptr[b + 1])].long()
        keys = torch.arange(len(slots), device=q.device)
        rows = keys[len(slots) - (last - first) :, None]
        lo, hi = hidden[first:last].unbind(-1)
        inside = (keys >= lo[..., None]) & (keys < hi[..., None])
        visible = (keys <= rows) & ~inside.any(1)
        out[first:last] = _attention(
            q[first:last], k_buffer[slots], v_buffer[slots], visible, scale, logit_cap
        ).to(out.dtype)
    return out


def shared_prefix_decode_reference(
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
) -> torch.Tensor:
    """`shared_prefix.shared_prefix_decode`, with the same arguments.

    What rows share changes how much is read, never the result, so `prefixes` is not looked at.
    """
    del prefixes, workspace
    if out is None:
        out = q.new_empty(*q.shape[:2], v_buffer.shape[2])
    scale = softmax_scale(q, sm_scale)
    for row in range(len(q)):
        slots = kv_indices[int(kv_indptr[row]) : int(kv_indptr[row + 1])].long()
        visible = torch.ones(1, len(slots), dtype=torch.bool, device=q.device)
        out[row] = _attention(
            q[row : row + 1], k_buffer[slots], v_buffer[slots], visible, scale, logit_cap
        )[0].to(out.dtype)
    return out
