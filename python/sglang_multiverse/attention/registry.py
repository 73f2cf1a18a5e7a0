"""How SGLang comes to know `multiverse_triton`, and when it is the default."""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger(__name__)

NAME = "multiverse_triton"
_PLAIN = "triton"  # of SGLang: what serves where our kernels cannot


def register() -> None:
    """Add the backend to SGLang's choices and registry. Any number of times."""
    from sglang.srt.arg_groups.choices import (
        ATTENTION_BACKEND_CHOICES,
        add_attention_backend_choices,
    )
    from sglang.srt.layers.attention.attention_registry import register_attention_backend

    if NAME not in ATTENTION_BACKEND_CHOICES:
        add_attention_backend_choices([NAME])
    register_attention_backend(NAME)(create)


def create(runner: Any) -> Any:
    """The backend for a `ModelRunner`, or SGLang's own where the model asks for more."""
    from sglang.srt.layers.attention.attention_registry import ATTENTION_BACKENDS

    why = unfit(runner)
    if why:
        logger.info("Attention backend %s: SGLang's %s, because of %s.", NAME, _PLAIN, why)
        return ATTENTION_BACKENDS[_PLAIN](runner)
    from .backend import MultiverseTritonBackend

    return MultiverseTritonBackend(runner)


def unfit(runner: Any) -> str:
    """Why our kernels cannot hide what a step may ask them to hide; empty if they can."""
    from sglang.srt.model_executor.cuda_graph_config import (
        Backend,
        Phase,
        check_cuda_graph_backend,
    )
    from sglang.srt.runtime_context import get_exec, get_parallel

    from sglang_multiverse.kernels.inputs import DTYPES, HEAD_DIMS

    config = runner.model_config
    dims = {config.head_dim, config.v_head_dim}
    rules = (
        (runner.is_draft_worker, "a draft model"),
        (runner.use_mla_backend, "MLA"),
        (config.is_encoder_decoder, "an encoder"),
        (runner.sliding_window_size is not None, "a sliding window"),
        (config.has_attention_sinks, "attention sinks"),
        (not all(dim in HEAD_DIMS for dim in dims), f"head dims {sorted(dims)}"),
        (
            runner.kv_cache_dtype != runner.dtype or runner.dtype not in DTYPES,
            f"KV of {runner.kv_cache_dtype} beside {runner.dtype}",
        ),
        (get_parallel().attn_dcp_size > 1, "context parallelism"),
        (
            get_exec().deterministic.enable_deterministic_inference,
            "results that must not depend on the batch",
        ),
        # Intervals are not in its buffers: a graph would show what a step hides.
        (check_cuda_graph_backend(Phase.PREFILL, Backend.FULL), "full CUDA graphs of extends"),
    )
    return next((why for applies, why in rules if applies), "")


def prefer(backend: str, server_args: Any, use_mla_backend: bool, model_config: Any) -> str | None:
    """Hook after SGLang's choice of a backend, which it asks for where the user named none.

    Ours for a model with the tags on CUDA; `None` leaves SGLang's choice.
    """
    from sglang.srt.utils import is_cuda

    if use_mla_backend or not is_cuda() or server_args.speculative_algorithm is not None:
        return None
    if model_config.sliding_window_size is not None or model_config.has_attention_sinks:
        return None
    if not _has_tags(server_args):
        return None
    logger.info("Attention backend %s, in place of %s: the model has the tags.", NAME, backend)
    return NAME


def _has_tags(server_args: Any) -> bool:
    from sglang.srt.utils.hf_transformers_utils import get_tokenizer

    from sglang_multiverse.structure import MissingTagsError, resolve_tags

    if server_args.skip_tokenizer_init:
        return False
    tokenizer = get_tokenizer(
        server_args.tokenizer_path or server_args.model_path,
        tokenizer_mode=server_args.tokenizer_mode,
        trust_remote_code=server_args.trust_remote_code,
        tokenizer_revision=server_args.revision,
    )
    try:
        resolve_tags(tokenizer)
    except MissingTagsError:
        return False
    return True


def capture_both_graphs(runner: Any, *args: Any, **kwargs: Any) -> None:
    """Hook before `DecodeCudaGraphRunner._capture_one_stream`: a graph without groups, one with."""
    del args, kwargs
    variants = getattr(runner.attn_backend, "graph_variants", None)
    if variants is None or not runner.capture_forward_mode.is_decode():
        return
    if runner.attention_graph_variants is None:
        runner.attention_graph_variants = variants
