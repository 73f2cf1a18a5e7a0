"""What stands in for the model worker and the sockets."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import zmq

from sglang_multiverse.kernels.visible import SeesBranches, Visible

# From a `ForwardBatch`, the `req_to_token` table, and what an attention backend is told, to
# logits, float `[rows, vocabulary]`, which the caller may write to.
Model = Callable[[Any, torch.Tensor, Visible], torch.Tensor]


class Attention:
    """In the place of an attention backend that cannot be told anything."""

    needs_cpu_seq_lens = True

    def __init__(self) -> None:
        self.visible = Visible()


class Seeing(Attention, SeesBranches):
    """One that can."""

    def expect(self, visible: Visible) -> None:
        self.visible = visible


class Recorder:
    """In a socket's place: nothing to receive, and all that was sent, in order."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send_output(self, output: Any, _recv_obj: Any = None) -> None:
        self.sent.append(output)

    def recv(self, flags: int = 0) -> bytes:
        raise zmq.Again

    recv_pyobj = recv


class Worker:
    """In the model worker's place: real pools, no weights.

    Attributes:
        seconds: of this thread's CPU that went into `model` and into choosing its best
            token, which is not the scheduler's time.
    """

    weight_load_time = kv_cache_allocation_time = preloaded_weights_bytes = 0.0
    sliding_window_size = None
    is_hybrid_swa = False

    def __init__(
        self, scheduler: Any, model: Model, slots: int, rows: int, *, sees: bool = False
    ) -> None:
        from sglang.srt.mem_cache.allocator.paged import PagedTokenToKVPoolAllocator
        from sglang.srt.mem_cache.allocator.token import TokenToKVPoolAllocator
        from sglang.srt.mem_cache.memory_pool import MHATokenToKVPool, ReqToTokenPool
        from sglang.srt.model_executor.model_runner_components.ngram_embedding_manager import (
            NgramEmbeddingManager,
        )

        self.model = model
        self.seconds = 0.0
        self.graph_memory_usage: dict[str, float] = {}
        self.graph_time_usage: dict[str, float] = {}
        self.model_config = config = scheduler.model_config
        page = scheduler.page_size
        kv = _moving(MHATokenToKVPool, model)(
            slots, page, torch.float32, 1, 1, 1, "cpu", False, enable_alt_stream=False
        )
        if page == 1:
            allocator = TokenToKVPoolAllocator(slots, torch.float32, "cpu", kv, False)
        else:
            allocator = PagedTokenToKVPoolAllocator(slots, page, torch.float32, "cpu", kv, False)
        self.model_runner = SimpleNamespace(
            attn_backend=Seeing() if sees else Attention(),
            canary_manager=None,
            device="cpu",
            effective_logical_max_total_num_tokens=slots,
            forward_stream=torch.cpu.Stream(),
            is_draft_worker=False,
            kv_index_translator=_NoTranslator(),
            logical_max_total_num_tokens=slots,
            lora_manager=None,
            max_running_requests=rows,
            model_config=config,
            mtp_draft_device_pools=(),
            mtp_draft_mamba_pools=(),
            ngram_embedding_manager=NgramEmbeddingManager(enabled=False, table=None, n=0),
            prefill_attention_backend_str="torch_native",
            prefill_aware_swa=False,
            prefill_cuda_graph_runner=None,
            req_to_token_pool=ReqToTokenPool(rows, config.context_len + 4, "cpu", False),
            spec_algorithm=scheduler.spec_algorithm,
            token_to_kv_pool=kv,
            token_to_kv_pool_allocator=allocator,
            weight_load_mem_usage=0.0,
        )

    def get_memory_pool(self) -> tuple[Any, Any]:
        runner = self.model_runner
        return runner.req_to_token_pool, runner.token_to_kv_pool_allocator

    def forward_batch_generation(self, batch: Any, **kwargs: Any) -> Any:
        """Positions, bias and mask by SGLang and our hooks; the best token of `model`'s logits."""
        from sglang.srt.environ import envs
        from sglang.srt.layers.logits_processor import LogitsProcessorOutput
        from sglang.srt.managers.utils import GenerationBatchResult
        from sglang.srt.model_executor.forward_batch_info import ForwardBatch

        forward = ForwardBatch.init_new(
            batch, self.model_runner, return_hidden_states_before_norm=False
        )
        start = time.thread_time()
        runner = self.model_runner
        table = runner.req_to_token_pool.req_to_token
        logits = self.model(forward, table, runner.attn_backend.visible)
        self.seconds += time.thread_time() - start
        info = batch.sampling_info
        result = GenerationBatchResult(
            logits_output=LogitsProcessorOutput(next_token_logits=logits),
            can_run_cuda_graph=False,
        )

        def sample() -> Any:
            info.apply_logits_bias(logits)
            start = time.thread_time()
            result.next_token_ids = logits.argmax(dim=-1)
            self.seconds += time.thread_time() - start
            return result

        if batch.enable_overlap and envs.SGLANG_ENABLE_DELAY_SAMPLE.get():
            result.delay_sample_func = sample
            return result
        return sample()


def _moving(pool: type[Any], model: Model) -> type[Any]:
    """A KV pool that tells `model`, which has the KV, what is copied where."""

    class Moving(pool):  # type: ignore[misc]
        def move_kv_cache(self, to: torch.Tensor, source: torch.Tensor) -> None:
            super().move_kv_cache(to, source)
            model.kv[to] = model.kv[source]  # type: ignore[attr-defined]

    return Moving


class _NoTranslator:
    """In place of the table that maps KV slots for attention: nothing attends."""

    def own_plan(self, _batch: Any) -> Any:
        return SimpleNamespace(bind=lambda *args, **kwargs: None)
