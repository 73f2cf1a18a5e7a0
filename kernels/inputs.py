"""What both kernels ask of their arguments; nothing here reads data or waits for a GPU."""

from __future__ import annotations

import math

import torch
from triton import knobs

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
HEAD_DIMS = range(16, 257)


class KernelInputError(ValueError):
    """An argument that a kernel cannot take; the message begins with its name."""


def check_device(q: torch.Tensor) -> None:
    """Kernels need a GPU, or Triton's interpreter."""
    if q.device.type == "cpu" and not knobs.runtime.interpret:
        raise KernelInputError(
            "q: is on the CPU; allowed are GPU tensors, or CPU tensors where TRITON_INTERPRET=1 "
            "was set before Triton was imported (`kernels.reference` has the same in plain torch)"
        )


def check_attention(
    q: torch.Tensor, k_buffer: torch.Tensor, v_buffer: torch.Tensor, logit_cap: float
) -> None:
    """`q` [tokens, heads, d], `k_buffer` [slots, kv heads, d], `v_buffer` [slots, kv heads, dv]."""
    for name, tensor in (("q", q), ("k_buffer", k_buffer), ("v_buffer", v_buffer)):
        if tensor.dim() != 3:
            raise KernelInputError(f"{name}: has {tensor.dim()} dimensions; allowed is 3")
        if tensor.dtype not in DTYPES or tensor.dtype != q.dtype:
            allowed = ", ".join(map(str, DTYPES))
            raise KernelInputError(f"{name}: is {tensor.dtype}; allowed, for all alike: {allowed}")
        if tensor.shape[2] not in HEAD_DIMS:
            raise KernelInputError(f"{name}: head dim {tensor.shape[2]}; allowed are 16 to 256")
        if tensor.stride(2) != 1:
            raise KernelInputError(f"{name}: the last dimension must be contiguous")
        if tensor.device != q.device:
            raise KernelInputError(f"{name}: is on {tensor.device}; q is on {q.device}")
    heads, kv_heads = q.shape[1], k_buffer.shape[1]
    if kv_heads == 0 or heads % kv_heads:
        raise KernelInputError(f"q: {heads} heads are no multiple of {kv_heads} KV heads")
    if q.shape[2] != k_buffer.shape[2]:
        raise KernelInputError(f"k_buffer: head dim {k_buffer.shape[2]}; q has {q.shape[2]}")
    if k_buffer.shape[:2] != v_buffer.shape[:2]:
        raise KernelInputError(
            f"v_buffer: {tuple(v_buffer.shape[:2])} slots and heads; "
            f"k_buffer has {tuple(k_buffer.shape[:2])}"
        )
    if not (math.isfinite(logit_cap) and logit_cap >= 0):
        raise KernelInputError(f"logit_cap: {logit_cap}; allowed are 0 (none) and positive numbers")


def check_indices(name: str, tensor: torch.Tensor, length: int | None = None) -> None:
    """A contiguous one-dimensional integer tensor, of `length` if that is given."""
    if tensor.dim() != 1 or tensor.dtype not in (torch.int32, torch.int64):
        raise KernelInputError(
            f"{name}: {tensor.dtype} of shape {tuple(tensor.shape)}; allowed is one dimension "
            "of int32 or int64"
        )
    if not tensor.is_contiguous():
        raise KernelInputError(f"{name}: must be contiguous")
    if length is not None and tensor.shape[0] != length:
        raise KernelInputError(f"{name}: has {tensor.shape[0]} entries; allowed are {length}")


def output_like(q: torch.Tensor, v_buffer: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    """`out` if it fits, or a new tensor: [tokens, heads, dv], of `q`'s dtype."""
    shape = (*q.shape[:2], v_buffer.shape[2])
    if out is None:
        return torch.empty(shape, dtype=q.dtype, device=q.device)
    if out.shape != shape or out.dtype != q.dtype or out.stride(2) != 1:
        raise KernelInputError(
            f"out: {out.dtype} {tuple(out.shape)}; allowed is {q.dtype} {shape}, its last "
            "dimension contiguous"
        )
    return out


def softmax_scale(q: torch.Tensor, sm_scale: float | None) -> float:
    return 1.0 / math.sqrt(q.shape[2]) if sm_scale is None else float(sm_scale)
