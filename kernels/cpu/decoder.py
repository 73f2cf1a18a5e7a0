"""A dense decoder (Llama, Qwen2, Qwen3) in one compiled call for each step."""

from __future__ import annotations

from ctypes import byref
from dataclasses import dataclass

import torch

from ..inputs import KernelInputError
from . import library as lib
from .attention import STEP, cache_struct, heads_struct
from .linear import PackedLinear, pointer
from .rows import Rows

_STATUS = {
    1: "ids: one is not in the vocabulary",
    2: "positions: one is past the rotary table",
    3: "slots: one is negative",
}


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """Weights of one layer, and its KV buffers [slots, kv_heads, d].

    Attributes:
        qkv: [(heads + 2 kv_heads) · d, hidden]: queries, keys, values.
        out: [hidden, heads · d].
        gate_up: [2 intermediate, hidden], packed in halves.
        down: [hidden, intermediate].
        attention_norm, mlp_norm: fp32 [hidden].
        q_norm, k_norm: fp32 [d], or `None`.
    """

    qkv: PackedLinear
    out: PackedLinear
    gate_up: PackedLinear
    down: PackedLinear
    attention_norm: torch.Tensor
    mlp_norm: torch.Tensor
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    k_buffer: torch.Tensor
    v_buffer: torch.Tensor


class Decoder:
    """From token ids to normalised hidden states, in fp32; KV is written to its buffers."""

    def __init__(
        self,
        layers: list[DecoderLayer],
        *,
        heads: int,
        embedding: torch.Tensor,
        final_norm: torch.Tensor,
        rotary: torch.Tensor,
        eps: float,
        sm_scale: float,
    ) -> None:
        """
        Args:
            layers: from first to last.
            heads: query heads.
            embedding: fp32 or bf16 [vocabulary, hidden]; not copied.
            final_norm: fp32 [hidden].
            rotary: fp32 [positions, rotary dim]: cosines, then sines, of the half-split form.
            eps: of all norms.
            sm_scale: factor of the scores.

        Raises:
            KernelInputError: a dtype or size that the kernels do not have.
        """
        hidden = embedding.shape[1]
        for name, size in (("hidden", hidden), ("intermediate", layers[0].down.k)):
            if size % STEP:
                raise KernelInputError(f"{name}: {size}; allowed are multiples of {STEP}")
        if embedding.dtype not in (torch.float32, torch.bfloat16) or not embedding.is_contiguous():
            raise KernelInputError("embedding: must be contiguous, in fp32 or bf16")
        self._layers = layers
        self._kept = (embedding, final_norm, rotary)
        first = layers[0]
        self._model = lib.Model(
            len(layers),
            hidden,
            first.down.k,
            embedding.shape[0],
            rotary.shape[1],
            rotary.shape[0],
            heads_struct(heads, first.k_buffer, first.v_buffer, sm_scale, 0.0),
            eps,
            lib.KINDS[embedding.dtype],
            embedding.data_ptr(),
            final_norm.data_ptr(),
            rotary.data_ptr(),
            (lib.Layer * len(layers))(*map(_layer_struct, layers)),
        )
        self.hidden = hidden

    def __call__(
        self, ids: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor, rows: Rows
    ) -> torch.Tensor:
        """fp32 [tokens, hidden].

        Args:
            ids, positions: int64 [tokens].
            slots: int64 [tokens], where the KV of each goes; `rows` has them already.
            rows: the sequences whose last rows the tokens are.

        Raises:
            KernelInputError: an id, position or slot is out of range.
        """
        ids, positions, slots = (
            tensor.to(torch.int64).contiguous() for tensor in (ids, positions, slots)
        )
        for name, tensor in (("ids", ids), ("positions", positions), ("slots", slots)):
            if len(tensor) != rows.tokens:
                raise KernelInputError(f"{name}: {len(tensor)}; allowed are {rows.tokens}")
        out = torch.empty(rows.tokens, self.hidden)
        step = lib.Step(
            rows.struct(), ids.data_ptr(), positions.data_ptr(), slots.data_ptr(), out.data_ptr()
        )
        status = lib.library().mv_forward(byref(self._model), byref(step))
        if status:
            raise KernelInputError(_STATUS[status])
        return out


def _layer_struct(layer: DecoderLayer) -> lib.Layer:
    return lib.Layer(
        layer.qkv.struct(),
        layer.out.struct(),
        layer.gate_up.struct(),
        layer.down.struct(),
        layer.attention_norm.data_ptr(),
        layer.mlp_norm.data_ptr(),
        pointer(layer.q_norm),
        pointer(layer.k_norm),
        cache_struct(layer.k_buffer, layer.v_buffer),
    )
