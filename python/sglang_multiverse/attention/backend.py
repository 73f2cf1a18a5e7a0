"""The attention backend `multiverse_triton`: SGLang's Triton backend, told of branches.

What it is told decides, step by step, whose kernels run:

    extend, something hidden    ours, over the whole rows
    decode, prefixes shared     ours, in a CUDA graph of its own
    all else                    SGLang's, as in the backend `triton`
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import torch
from sglang.srt.layers.attention.triton_backend import TritonAttnBackend
from sglang.srt.layers.radix_attention import AttentionType
from sglang.srt.mem_cache.memory_pool import KVWriteLoc
from sglang.srt.model_executor.forward_batch_info import ForwardMode
from sglang.srt.model_executor.runner_utils.capture_mode import get_capture_attention_variant

from sglang_multiverse.kernels.extend import extend_attention
from sglang_multiverse.kernels.shared_prefix import shared_prefix_decode
from sglang_multiverse.kernels.visible import SeesBranches, Visible

from .prefixes import Shape, SharedPrefixes, Step

PLAIN, SHARED = "plain", "shared"


class HiddenError(RuntimeError):
    """Something is hidden in this step, and a layer of the model cannot hide it."""


class Rows(NamedTuple):
    """The slots of an extend's whole rows, cached and new tokens alike.

    Attributes:
        indptr: int32 `[rows + 1]`.
        indices: int64 `[≥ indptr[-1]]`.
    """

    indptr: torch.Tensor
    indices: torch.Tensor


class GraphVariants:
    """Two CUDA graphs for each batch size; SGLang asks which one a step runs."""

    capture_labels: ClassVar[tuple[str, ...]] = (PLAIN, SHARED)

    def __init__(self, prefixes: SharedPrefixes) -> None:
        self._prefixes = prefixes

    def select(self, forward_batch: Any) -> str:
        del forward_batch  # `expect` came before
        return SHARED if self._prefixes.shared else PLAIN


class MultiverseTritonBackend(SeesBranches, TritonAttnBackend):
    def __init__(self, model_runner: Any, **kwargs: Any) -> None:
        super().__init__(model_runner, **kwargs)
        pool, layer = self.token_to_kv_pool, self.token_to_kv_pool.start_layer
        keys, values = pool.get_key_buffer(layer), pool.get_value_buffer(layer)
        shape = Shape(self.num_head, keys.shape[1], keys.shape[2], values.shape[2], keys.dtype)
        programs = 2 * max(self.device_core_count, 0)
        self.prefixes = SharedPrefixes(shape, self.device, programs)
        self.graph_variants = GraphVariants(self.prefixes)
        self._hidden: torch.Tensor | None = None
        # Of the step that is being prepared or computed; None where SGLang's kernels run.
        self._rows: Rows | None = None
        self._step: Step | None = None

    def expect(self, visible: Visible) -> None:
        self._hidden = visible.hidden
        self.prefixes.expect(visible.chains)

    # --- before a step -----------------------------------------------------------

    def init_forward_metadata(self, forward_batch: Any) -> None:
        super().init_forward_metadata(forward_batch)
        mode = forward_batch.forward_mode
        self._rows = self._step = None
        if mode.is_decode() and forward_batch.spec_info is None and self.prefixes.shared:
            rows = forward_batch.batch_size
            # Of few sizes, because the rows come and go.
            self._step = self.prefixes.filled(rows, 1 << (rows - 1).bit_length())
        elif mode in (ForwardMode.EXTEND, ForwardMode.MIXED) and self._hidden is not None:
            self._rows = self._whole_rows(forward_batch)

    def _whole_rows(self, forward_batch: Any) -> Rows:
        rows = forward_batch.batch_size
        total = forward_batch.seq_lens_sum
        if total is None:  # no count on the host: at most
            total = rows * self.max_context_len
        indptr = torch.zeros(rows + 1, dtype=torch.int32, device=self.device)
        indices = torch.empty(total, dtype=torch.int64, device=self.device)
        self._fill_kv_indptr_and_indices(
            forward_batch.kv_loc_plan,
            rows,
            forward_batch.seq_lens,
            forward_batch.req_pool_indices,
            indices,
            kv_indptr=indptr,
        )
        return Rows(indptr, indices)

    def init_cuda_graph_state(self, max_bs: int, max_num_tokens: int, **kwargs: Any) -> None:
        super().init_cuda_graph_state(max_bs, max_num_tokens, **kwargs)
        self.prefixes.reserve(max_bs)

    def init_forward_metadata_out_graph(self, forward_batch: Any, in_capture: bool = False) -> None:
        super().init_forward_metadata_out_graph(forward_batch, in_capture)
        self._rows = self._step = None
        size = forward_batch.batch_size
        if in_capture:
            # The tables' addresses go into the graph; what they say then does not matter.
            if get_capture_attention_variant() == SHARED:
                self._step = self.prefixes.step(size)
        elif self.prefixes.shared:
            self.prefixes.filled(size - getattr(forward_batch, "num_padding", 0), size)

    # --- a layer -----------------------------------------------------------------

    def forward_decode(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: Any,
        forward_batch: Any,
        save_kv_cache: bool = True,
        **kwargs: Any,
    ) -> torch.Tensor:
        """`q`, `k`, `v` `[rows, heads · d]`, of all heads on this card."""
        if self._step is None or _asks_more(layer, kwargs):
            return super().forward_decode(q, k, v, layer, forward_batch, save_kv_cache, **kwargs)
        if save_kv_cache:
            self._save(layer, forward_batch, k, v)
        out = q.new_empty((q.shape[0], layer.tp_q_head_num * layer.v_head_dim))
        _decode(
            q.reshape(-1, layer.tp_q_head_num, layer.qk_head_dim),
            *self._buffers(layer),
            self.forward_metadata.kv_indptr,
            self.forward_metadata.kv_indices,
            self._step.tables,
            self._step.workspace,
            sm_scale=layer.scaling,
            logit_cap=layer.logit_cap,
            out=out.view(-1, layer.tp_q_head_num, layer.v_head_dim),
        )
        return out

    def forward_extend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        layer: Any,
        forward_batch: Any,
        save_kv_cache: bool = True,
        **kwargs: Any,
    ) -> torch.Tensor:
        """`q`, `k`, `v` `[tokens, heads · d]`, of all heads on this card.

        Raises:
            HiddenError: something is hidden in this step that the layer would show.
        """
        if self._rows is None:
            return super().forward_extend(q, k, v, layer, forward_batch, save_kv_cache, **kwargs)
        more = _asks_more(layer, kwargs)
        if more or k is None:
            raise HiddenError(f"layer {layer.layer_id}: {more or 'keys of another layer'}")
        if save_kv_cache:
            self._save(layer, forward_batch, k, v)
        out = getattr(forward_batch, "_attn_output", None)
        if out is None:
            out = q.new_empty((q.shape[0], layer.tp_q_head_num * layer.v_head_dim))
        _extend(
            q.reshape(-1, layer.tp_q_head_num, layer.qk_head_dim),
            *self._buffers(layer),
            self.forward_metadata.qo_indptr,
            *self._rows,
            self._hidden,
            self.forward_metadata.max_extend_len,
            sm_scale=layer.scaling,
            logit_cap=layer.logit_cap,
            out=out.view(-1, layer.tp_q_head_num, layer.v_head_dim),
        )
        return out

    def _save(self, layer: Any, forward_batch: Any, k: torch.Tensor, v: torch.Tensor) -> None:
        where = KVWriteLoc.for_batch(forward_batch, swa_loc=self.forward_metadata.swa_out_cache_loc)
        self._set_kv_buffer(forward_batch, layer, where, k, v)

    def _buffers(self, layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
        pool = self.token_to_kv_pool
        return pool.get_key_buffer(layer.layer_id), pool.get_value_buffer(layer.layer_id)


_decode = torch.compiler.disable(shared_prefix_decode)
_extend = torch.compiler.disable(extend_attention)


def _asks_more(layer: Any, kwargs: dict[str, Any]) -> str:
    """What of a layer our kernels cannot do; empty if nothing."""
    asked = sorted(name for name, value in kwargs.items() if value is not None)
    window = layer.sliding_window_size
    rules = (
        (bool(asked), f"arguments {', '.join(asked)}"),
        (window is not None and window > -1, "a sliding window"),
        (layer.is_cross_attention, "cross attention"),
        (layer.attn_type != AttentionType.DECODER, f"attention of type {layer.attn_type}"),
        (layer.xai_temperature_len > 0, "a temperature by length"),
        (layer.logit_capping_method != "tanh", f"cap of scores {layer.logit_capping_method!r}"),
        (layer.k_scale is not None or layer.v_scale is not None, "scaled KV"),
    )
    return next((what for applies, what in rules if applies), "")
