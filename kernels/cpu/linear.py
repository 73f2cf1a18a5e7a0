"""Packed weights: matrix products whose results do not depend on how many rows there are."""

from __future__ import annotations

from ctypes import byref
from dataclasses import dataclass

import torch

from ..inputs import KernelInputError
from . import library as lib

_PAD = 64  # numbers behind a scale or bias, which the kernels read in whole panels


@dataclass(frozen=True, slots=True)
class PackedLinear:
    """A matrix [n, k] as fp32, bf16 or int8, for activations in fp32.

    Attributes:
        n, k: outputs and inputs.
        kind: dtype of the packed weights. bf16 is rounded to; in int8 the largest weight of an
            output is 127.
        weight: bytes.
        scale: fp32, of int8 weights.
        bias: fp32 or `None`.
    """

    n: int
    k: int
    kind: torch.dtype
    weight: torch.Tensor
    scale: torch.Tensor | None
    bias: torch.Tensor | None

    @classmethod
    def pack(
        cls,
        weight: torch.Tensor,
        kind: torch.dtype,
        *,
        bias: torch.Tensor | None = None,
        halves: bool = False,
    ) -> PackedLinear:
        """Copy and reorder a matrix [n, k]; in halves, outputs i and n / 2 + i lie together.

        Raises:
            KernelInputError: a kind or shape that the kernels do not have.
        """
        if kind not in lib.KINDS:
            allowed = ", ".join(map(str, lib.KINDS))
            raise KernelInputError(f"kind: {kind}; allowed are {allowed}")
        if weight.dim() != 2 or not weight.numel():
            raise KernelInputError(f"weight: {tuple(weight.shape)}; allowed is [n, k], not empty")
        if halves and (weight.shape[0] % 2 or bias is not None):
            raise KernelInputError("weight: halves must be equal, and have no bias")
        library = lib.library()
        n, k = weight.shape
        code = lib.KINDS[kind]
        packed = torch.empty(library.mv_packed_bytes(n, k, code), dtype=torch.uint8)
        scale = torch.zeros(n + _PAD) if kind == torch.int8 else None
        if bias is not None:
            bias = torch.cat([bias.detach().float(), torch.zeros(_PAD)])
        source = weight.detach().float().contiguous()
        library.mv_pack(source.data_ptr(), n, k, code, halves, packed.data_ptr(), pointer(scale))
        return cls(n, k, kind, packed, scale, bias)

    def struct(self) -> lib.Linear:
        """Points into the tensors, which must live as long."""
        return lib.Linear(
            self.weight.data_ptr(),
            pointer(self.scale),
            pointer(self.bias),
            self.n,
            self.k,
            lib.KINDS[self.kind],
        )

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """fp32 [rows, n] of [rows, k]; not for a matrix in halves.

        Raises:
            KernelInputError: `x` has another shape.
        """
        if x.dim() != 2 or x.shape[1] != self.k:
            raise KernelInputError(f"x: {tuple(x.shape)}; allowed is [rows, {self.k}]")
        x = x.float().contiguous()
        out = torch.empty(len(x), self.n)
        lib.library().mv_linear(byref(self.struct()), x.data_ptr(), len(x), out.data_ptr())
        return out


def pointer(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def is_exact_in_bf16(weight: torch.Tensor) -> bool:
    """Whether packing as bf16 changes no number."""
    if weight.dtype == torch.bfloat16:
        return True
    return bool(torch.equal(weight.bfloat16().to(weight.dtype), weight))
