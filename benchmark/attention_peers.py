"""Who is measured beside our kernels. Each function prepares a call that returns the output.

What is prepared once per step or per fork in a server (plans, masks, gathered KV) is not
timed, for anyone. A peer that cannot be had raises `Skipped` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attention_cases import DecodeInput, ExtendInput, Tensors
from sglang_score_mod import score_mod_of

from sglang_multiverse.kernels.extend import extend_attention
from sglang_multiverse.kernels.reference import (
    extend_attention_reference,
    shared_prefix_decode_reference,
)
from sglang_multiverse.kernels.shared_prefix import Workspace, shared_prefix_decode

Call = Callable[[], torch.Tensor]


class Skipped(Exception):  # noqa: N818  (it is no error)
    """The peer cannot be had here."""


# --- extend -------------------------------------------------------------------


def _extend_arguments(given: ExtendInput) -> tuple[Any, ...]:
    q, k, v, kv_indptr, kv_indices = given.tensors
    return q, k, v, given.qo_indptr, kv_indptr, kv_indices, given.hidden, given.case.new


def ours_extend(given: ExtendInput) -> Call:
    out = torch.empty_like(given.tensors.q)
    return lambda: extend_attention(*_extend_arguments(given), out=out)


def reference_extend(given: ExtendInput) -> Call:
    return lambda: extend_attention_reference(*_extend_arguments(given))


def sglang_extend(given: ExtendInput) -> Call:
    """SGLang's Triton kernel with a dense mask."""
    mask = given.visible().to(torch.uint8).reshape(-1).repeat(given.case.sequences)
    size = given.case.new * (given.case.cached + given.case.new)
    count = given.case.sequences + 1
    indptr = torch.arange(count, device=mask.device, dtype=torch.int64) * size
    return _sglang_extend(given, mask, indptr, skip_prefix_custom_mask=False)


def sglang_extend_score_mod(given: ExtendInput) -> Call:
    """SGLang's Triton kernel with the same hidden intervals, read by a `score_mod`."""
    depth = given.hidden.shape[1]
    if depth == 0:
        return _sglang_extend(given, None, None)
    flat = given.hidden.reshape(len(given.hidden), 1, 2 * depth)
    aux = flat.expand(-1, given.tensors.heads.q, -1)
    return _sglang_extend(given, None, None, score_mod=score_mod_of(depth), aux_tensors=(aux,))


def _sglang_extend(
    given: ExtendInput, mask: torch.Tensor | None, mask_indptr: torch.Tensor | None, **kwargs: Any
) -> Call:
    from sglang.kernels.ops.attention.extend_attention import extend_attention_fwd

    q, k, v, kv_indptr, kv_indices = given.tensors
    case = given.case
    rows = kv_indices.view(case.sequences, -1)
    new = rows[:, case.cached :].reshape(-1)
    cached = rows[:, : case.cached].reshape(-1).contiguous()
    cached_indptr = kv_indptr - given.qo_indptr
    k_new, v_new, out = k[new], v[new], torch.empty_like(q)

    def call() -> torch.Tensor:
        extend_attention_fwd(
            *(q, k_new, v_new, out, k, v, given.qo_indptr, cached_indptr, cached, mask),
            is_causal=True,
            mask_indptr=mask_indptr,
            max_len_extend=case.new,
            k_scale=1.0,
            v_scale=1.0,
            **kwargs,
        )
        return out

    return call


def flex_extend(given: ExtendInput) -> Call:
    """torch's `flex_attention` over gathered KV, sequences as a batch; compiled on a GPU."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q, k, v, _, kv_indices = given.tensors
    case, device = given.case, str(q.device)
    hidden = given.hidden[: case.new]

    def visible(b: Any, h: Any, i: Any, j: Any) -> Any:  # noqa: ARG001
        seen = j <= i + case.cached
        for level in range(hidden.shape[1]):
            seen &= (j < hidden[i, level, 0]) | (j >= hidden[i, level, 1])
        return seen

    long = case.cached + case.new
    mask = create_block_mask(visible, None, None, case.new, long, device=device)
    shape = (case.sequences, -1, *k.shape[1:])
    keys, values = (x[kv_indices].view(shape).transpose(1, 2).contiguous() for x in (k, v))
    queries = q.view(case.sequences, case.new, *q.shape[1:]).transpose(1, 2).contiguous()
    attention = torch.compile(flex_attention) if q.is_cuda else flex_attention

    def call() -> torch.Tensor:
        out = attention(queries, keys, values, block_mask=mask, enable_gqa=True)
        return out.transpose(1, 2).reshape(q.shape)

    return call


def flashinfer_extend(given: ExtendInput) -> Call:
    """FlashInfer's ragged prefill with a mask; its KV is gathered before."""
    flashinfer, workspace = _flashinfer(given.tensors)
    q, k, v, kv_indptr, kv_indices = given.tensors
    wrapper = flashinfer.BatchPrefillWithRaggedKVCacheWrapper(workspace, "NHD")
    mask = given.visible().reshape(-1).repeat(given.case.sequences)
    masked = {"custom_mask": mask} if given.hidden.shape[1] else {"causal": True}
    types = {"q_data_type": q.dtype, "kv_data_type": q.dtype}
    wrapper.plan(given.qo_indptr, kv_indptr, *given.tensors.heads, **masked, **types)
    keys, values = k[kv_indices], v[kv_indices]
    return lambda: wrapper.run(q, keys, values)


# --- decode -------------------------------------------------------------------


def ours_decode(given: DecodeInput) -> Call:
    return _ours_decode(given, shared=True)


def ours_decode_unshared(given: DecodeInput) -> Call:
    """The same kernel, told that no row shares anything: plain split-KV decode."""
    return _ours_decode(given, shared=False)


def _ours_decode(given: DecodeInput, *, shared: bool) -> Call:
    tables = given.tables if shared else None
    workspace = Workspace.allocate(*given.tensors[:3], tables)
    out = torch.empty_like(given.tensors.q)
    return lambda: shared_prefix_decode(*given.tensors, tables, workspace, out=out)


def reference_decode(given: DecodeInput) -> Call:
    return lambda: shared_prefix_decode_reference(*given.tensors)


def sglang_decode(given: DecodeInput) -> Call:
    """SGLang's Triton decode, which reads every row whole; 8 splits, its default."""
    from sglang.kernels.ops.attention.decode_attention import decode_attention_fwd

    q, k, v, kv_indptr, kv_indices = given.tensors
    splits, (rows, heads, d) = 8, q.shape
    logits = torch.empty(rows, heads, splits, d, dtype=torch.float32, device=q.device)
    lse = torch.empty(rows, heads, splits, dtype=torch.float32, device=q.device)
    counts = torch.full((rows,), splits, dtype=torch.int32, device=q.device)
    out = torch.empty_like(q)

    def call() -> torch.Tensor:
        decode_attention_fwd(
            *(q, k, v, out, kv_indptr, kv_indices, logits, lse, counts, splits, d**-0.5, 1.0, 1.0)
        )
        return out

    return call


def flashinfer_decode(given: DecodeInput) -> Call:
    flashinfer, workspace = _flashinfer(given.tensors)
    q, k, v, kv_indptr, kv_indices = given.tensors
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD", use_tensor_cores=True)
    full = torch.ones(len(q), dtype=torch.int32, device=q.device)
    wrapper.plan(
        *(kv_indptr, kv_indices.int(), full, *given.tensors.heads, 1),
        q_data_type=q.dtype,
        kv_data_type=q.dtype,
    )
    return lambda: wrapper.run(q, (k[:, None], v[:, None]))


def flashinfer_cascade(given: DecodeInput) -> Call:
    """FlashInfer's cascade: a level for each depth of the trees, one for the rows' own tokens."""
    flashinfer, workspace = _flashinfer(given.tensors)
    q, k, v, _, kv_indices = given.tensors
    case = given.case
    if case.rows_under(0) == 1:
        raise Skipped("nothing is shared")
    rows = kv_indices.int().view(case.rows, -1)
    levels, start = [], 0
    for depth, length in enumerate((*case.prefix, case.own)):
        under = case.rows_under(depth)
        levels.append((under, rows[::under, start : start + length].reshape(-1), length))
        start += length

    def steps(count: int, step: int) -> torch.Tensor:
        return torch.arange(count + 1, dtype=torch.int32, device=q.device) * step

    wrapper = flashinfer.MultiLevelCascadeAttentionWrapper(len(levels), workspace, "NHD")
    wrapper.plan(
        [steps(case.rows // under, under) for under, _, _ in levels],
        [steps(case.rows // under, length) for under, _, length in levels],
        [indices.contiguous() for _, indices, _ in levels],
        [
            torch.ones(case.rows // under, dtype=torch.int32, device=q.device)
            for under, _, _ in levels
        ],
        *given.tensors.heads,
        1,
        q_data_type=q.dtype,
        kv_data_type=q.dtype,
    )
    return lambda: wrapper.run(q, (k[:, None], v[:, None]))


def _flashinfer(tensors: Tensors) -> tuple[Any, torch.Tensor]:
    if not tensors.q.is_cuda:
        raise Skipped("FlashInfer needs a GPU")
    import flashinfer

    return flashinfer, torch.empty(256 << 20, dtype=torch.uint8, device=tensors.q.device)


EXTEND_PEERS: dict[str, Callable[[ExtendInput], Call]] = {
    "ours": ours_extend,
    "SGLang Triton, score_mod": sglang_extend_score_mod,
    "SGLang Triton, dense mask": sglang_extend,
    "FlashInfer ragged prefill": flashinfer_extend,
    "flex_attention": flex_extend,
    "reference": reference_extend,
}
DECODE_PEERS: dict[str, Callable[[DecodeInput], Call]] = {
    "ours": ours_decode,
    "ours, nothing shared": ours_decode_unshared,
    "SGLang Triton": sglang_decode,
    "FlashInfer batch decode": flashinfer_decode,
    "FlashInfer cascade": flashinfer_cascade,
    "reference": reference_decode,
}
