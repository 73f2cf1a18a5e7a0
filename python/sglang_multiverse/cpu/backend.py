"""The attention backend `multiverse_cpu`: the compiled kernels under SGLang's interface."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from sglang.srt.layers.attention.torch_native_backend import TorchNativeAttnBackend
from sglang.srt.layers.radix_attention import AttentionType, RadixAttention
from sglang.srt.mem_cache.memory_pool import KVWriteLoc, MHATokenToKVPool

from ..kernels.cpu import library
from ..kernels.cpu.attention import STEP, attend
from ..kernels.cpu.rows import Rows, Shared
from ..kernels.grouping import Link
from ..kernels.visible import SeesBranches, Visible
from .model import NotCompiledError, compile_model

logger = logging.getLogger(__name__)

NAME = "multiverse_cpu"


def create_backend(runner: Any) -> TorchNativeAttnBackend:
    """The backend for `runner`; torch-native, with one log line, where the kernels do not fit."""
    reason = why_not(runner)
    if reason is not None:
        logger.warning("Attention runs on torch_native, not on compiled kernels: %s", reason)
        return TorchNativeAttnBackend(runner)
    backend = MultiverseCpuBackend(runner)
    try:
        compile_model(runner, backend)
    except NotCompiledError as error:
        logger.warning("The model runs layer by layer in torch, with compiled attention: %s", error)
    return backend


def why_not(runner: Any) -> str | None:
    """What of the model or its KV pool the kernels do not have; `None` if nothing."""
    reason = library.available()
    if reason is not None:
        return reason
    if not runner.spec_algorithm.is_none():
        return "speculative decoding verifies drafts with masks of its own"
    pool = runner.token_to_kv_pool
    if type(pool) is not MHATokenToKVPool:
        return f"the KV pool is a {type(pool).__name__}"
    if pool.store_dtype not in (torch.float32, torch.bfloat16) or pool.k_buffer[0].dim() != 3:
        return f"KV is kept as {pool.store_dtype}, {tuple(pool.k_buffer[0].shape)}"
    for layer in runner.model.modules():
        if not isinstance(layer, RadixAttention):
            continue
        if layer.is_cross_attention or layer.attn_type != AttentionType.DECODER:
            return f"layer {layer.layer_id} is not causal self-attention"
        if layer.sliding_window_size is not None and layer.sliding_window_size > -1:
            return f"layer {layer.layer_id} has a sliding window"
        if layer.qk_head_dim % STEP or layer.v_head_dim % STEP:
            dims = f"{layer.qk_head_dim} and {layer.v_head_dim}"
            return f"head dims {dims}: allowed are multiples of {STEP}"
    return None


class MultiverseCpuBackend(TorchNativeAttnBackend, SeesBranches):  # type: ignore[misc]
    """Decode and extend of a whole batch in one call; hidden tokens are not read."""

    rows: Rows  # of the step at hand: SGLang calls `init_forward_metadata` before each

    def __init__(self, runner: Any) -> None:
        super().__init__(runner)
        self._visible = Visible()
        self._chains: Sequence[Sequence[Link]] = ()
        self._shared: Shared | None = None
        layer = next(m for m in runner.model.modules() if isinstance(m, RadixAttention))
        self._group = layer.tp_q_head_num // layer.tp_k_head_num

    def expect(self, visible: Visible) -> None:
        self._visible = visible

    def init_forward_metadata(self, forward_batch: Any) -> None:
        """The sequences of this step, for all its layers."""
        visible, self._visible = self._visible, Visible()
        decodes = forward_batch.forward_mode.is_decode()
        count = len(forward_batch.seq_lens)
        if decodes and visible.chains is not self._chains:
            self._chains = visible.chains
            self._shared = Shared.of_chains(visible.chains, count, self._group)
        self.rows = Rows.of_pool(
            self.req_to_token_pool.req_to_token,
            forward_batch.req_pool_indices,
            forward_batch.seq_lens,
            None if decodes else forward_batch.extend_seq_lens,
            count if decodes else forward_batch.extend_num_tokens,
            hidden=None if decodes else visible.hidden,
            shared=self._shared if decodes else None,
        )

    def forward_extend(
        self,
        q: torch.Tensor,
        k: torch.Tensor | None,
        v: torch.Tensor | None,
        layer: RadixAttention,
        forward_batch: Any,
        save_kv_cache: bool = True,
    ) -> torch.Tensor:
        """[tokens, heads · dv], for a step of any kind."""
        pool = self.token_to_kv_pool
        if save_kv_cache and k is not None and v is not None:
            pool.set_kv_buffer(layer, KVWriteLoc(forward_batch.out_cache_loc, None), k, v)
        out = attend(
            q.reshape(-1, layer.tp_q_head_num, layer.qk_head_dim),
            pool.get_key_buffer(layer.layer_id),
            pool.get_value_buffer(layer.layer_id),
            self.rows,
            sm_scale=layer.scaling,
            logit_cap=layer.logit_cap,
        )
        return out.flatten(1)

    forward_decode = forward_extend
