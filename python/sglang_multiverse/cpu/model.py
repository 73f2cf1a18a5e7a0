"""The model's forward pass and its head as compiled calls, in place of layers of modules.

All that comes before and after stays SGLang's: batches, logits processing, sampling. What the
compiled decoder does not know keeps SGLang's modules, with a named reason.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..kernels.cpu import library
from ..kernels.cpu.decoder import Decoder, DecoderLayer
from ..kernels.cpu.linear import PackedLinear, is_exact_in_bf16
from ..kernels.inputs import KernelInputError
from .known import NotCompiledError, check_model, rotary_table

if TYPE_CHECKING:
    from .backend import MultiverseCpuBackend

__all__ = ["CompiledModel", "NotCompiledError", "compile_model"]

logger = logging.getLogger(__name__)

_KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}


def compile_model(runner: Any, backend: MultiverseCpuBackend) -> CompiledModel:
    """Put compiled calls in the place of the model's forward pass and head.

    Raises:
        NotCompiledError: naming what of the model is not known.
    """
    from ..engine.options import MultiverseArgs

    check_model(runner)
    return CompiledModel(
        runner.model, runner.token_to_kv_pool, backend, MultiverseArgs.from_env().cpu_weights
    )


class Packed(NamedTuple):
    """What is made of the model's weights."""

    decoder: Decoder
    head: PackedLinear


class CompiledModel:
    """Stands in for `model.model.forward`, and for the head's product."""

    def __init__(self, model: Any, pool: Any, backend: MultiverseCpuBackend, weights: str) -> None:
        """
        Args:
            model: an SGLang model that `known.check_model` accepts.
            pool: its KV pool.
            backend: knows the sequences of each step.
            weights: fp32, bf16, int8, or auto: bf16 where that changes no weight, else fp32.

        Raises:
            NotCompiledError: a size that the kernels do not have.
        """
        self._model, self._pool, self._backend, self._weights = model, pool, backend, weights
        self._modules = model.model.forward
        self._packed: Packed | None = None
        try:
            self._current()
        except KernelInputError as error:
            raise NotCompiledError(str(error)) from error
        # `forget` is called by `engine.platform`, after SGLang wrote to the weights.
        model.multiverse_compiled = self
        model.model.forward = self.forward
        method = model.lm_head.quant_method
        model.lm_head.quant_method = HeadMethod(method, self)

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        forward_batch: Any,
        input_embeds: torch.Tensor | None = None,
        pp_proxy_tensors: Any = None,
    ) -> Any:
        """Hidden states, fp32 [tokens, hidden], as the modules' forward returns them."""
        mode = forward_batch.forward_mode
        if (
            input_embeds is not None
            or self._model.model.layers_to_capture
            or self._pool.layer_transfer_counter is not None
            or not (mode.is_decode() or mode.is_extend())
        ):
            return self._modules(
                input_ids, positions, forward_batch, input_embeds, pp_proxy_tensors
            )
        return self._current().decoder(
            input_ids, positions, forward_batch.out_cache_loc, self._backend.rows
        )

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """fp32 [tokens, vocabulary as padded]."""
        return self._current().head(hidden)

    def forget(self) -> None:
        """The model's weights have changed: pack them again before the next step."""
        self._packed = None

    def _current(self) -> Packed:
        if self._packed is None:
            self._packed = self._pack()
        return self._packed

    def _pack(self) -> Packed:
        start = time.perf_counter()
        inner = self._model.model
        kinds: set[torch.dtype] = set()

        def pack(linear: Any, halves: bool = False) -> PackedLinear:
            weight = linear.weight
            kind = _KINDS.get(self._weights)
            if kind is None:
                kind = torch.bfloat16 if is_exact_in_bf16(weight) else torch.float32
            kinds.add(kind)
            bias = getattr(linear, "bias", None)
            return PackedLinear.pack(weight, kind, bias=bias, halves=halves)

        layers = []
        for layer in inner.layers:
            attention, mlp = layer.self_attn, layer.mlp
            number = attention.attn.layer_id
            layers.append(
                DecoderLayer(
                    qkv=pack(attention.qkv_proj),
                    out=pack(attention.o_proj),
                    gate_up=pack(mlp.gate_up_proj, halves=True),
                    down=pack(mlp.down_proj),
                    attention_norm=_fp32(layer.input_layernorm),
                    mlp_norm=_fp32(layer.post_attention_layernorm),
                    q_norm=_fp32(getattr(attention, "q_norm", None)),
                    k_norm=_fp32(getattr(attention, "k_norm", None)),
                    k_buffer=self._pool.get_key_buffer(number),
                    v_buffer=self._pool.get_value_buffer(number),
                )
            )
        first = inner.layers[0].self_attn
        decoder = Decoder(
            layers,
            heads=first.num_heads,
            embedding=inner.embed_tokens.weight.detach(),
            final_norm=_fp32(inner.norm),
            rotary=rotary_table(first.rotary_emb),
            eps=inner.norm.variance_epsilon,
            sm_scale=first.attn.scaling,
        )
        head = pack(self._model.lm_head)
        logger.info(
            "The model runs compiled: %s, weights in %s, packed in %.1f s.",
            library.instruction_set(),
            " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds)),
            time.perf_counter() - start,
        )
        return Packed(decoder, head)


class HeadMethod:
    """The head's `quant_method`: its product is ours, all else that of the method it replaces."""

    def __init__(self, method: Any, compiled: CompiledModel) -> None:
        self._method, self._compiled = method, compiled

    def apply(self, layer: Any, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        logits = self._compiled.logits(x)
        return logits if bias is None else logits + bias

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)


def _fp32(norm: Any) -> Any:
    return None if norm is None else norm.weight.detach().float().contiguous()
