"""The hooks on SGLang.

What else we reach in it is found in our code by `test/engine/upstream_use.py`.

Raising the pin starts here: `test/engine/test_contract.py` fails with the name
of what moved.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

SGLANG_VERSION = "0.5.23"

SCHEDULER = "sglang.srt.managers.scheduler"
HTTP_SERVER = "sglang.srt.entrypoints.http_server"
_COMPONENTS = "sglang.srt.managers.scheduler_components"
RESULTS = f"{_COMPONENTS}.batch_result_processor.SchedulerBatchResultProcessor"
LOGPROBS = f"{_COMPONENTS}.logprob_result_processor.SchedulerLogprobResultProcessor"
SAMPLING_INFO = "sglang.srt.sampling.sampling_batch_info.SamplingBatchInfo"

# Where SGLang pins threads to cores, in each worker.
THREAD_PINNING = "sglang.srt.distributed.bootstrap._init_cpu_threads_env"

# What SGLang's further HTTP processes import, and what they are to import.
APP_PATH_ENV = "SGLANG_HTTP_SERVER_APP_PATH"
WORKER_APP = "sglang_multiverse.engine.http.worker:app"


class Hook(NamedTuple):
    """A hook as `sglang.srt.plugins.hook_registry.HookRegistry` takes it."""

    target: str
    hook: Callable[..., Any]
    type: str  # before, after, around or replace


class HookError(RuntimeError):
    """A hook did not take effect; serving without it would be silently wrong."""


def scheduler_hooks() -> tuple[Hook, ...]:
    """The hooks of the scheduler process."""
    from sglang_multiverse.attention import capture_both_graphs

    from .penalties import count_later, count_what_is_seen
    from .positions import shift_positions
    from .sampling import mask_logits, remember_copy, sample_logprobs_by_stream, sample_with_draws
    from .scheduler import MultiverseScheduler
    from .scoring import collect, keep_from_sglang
    from .script import carry_over, lift
    from .visibility import tell_backend

    return (
        Hook(f"{SCHEDULER}.Scheduler", MultiverseScheduler, "replace"),
        Hook(
            "sglang.srt.model_executor.forward_batch_info.ForwardBatch.init_new",
            shift_positions,
            "after",
        ),
        Hook(
            "sglang.srt.model_executor.forward_batch_info.ForwardBatch.init_new",
            tell_backend,
            "after",
        ),
        Hook(f"{SAMPLING_INFO}.from_schedule_batch", count_what_is_seen, "after"),
        Hook(f"{SAMPLING_INFO}.copy_for_forward", remember_copy, "after"),
        Hook(f"{SAMPLING_INFO}.copy_for_forward", carry_over, "after"),
        Hook(
            "sglang.srt.managers.schedule_batch.ScheduleBatch.cumulate_penalty_output_tokens",
            count_later,
            "around",
        ),
        Hook(f"{SAMPLING_INFO}.apply_logits_bias", mask_logits, "after"),
        Hook(f"{SAMPLING_INFO}.apply_logits_bias", lift, "after"),
        Hook(
            "sglang.srt.layers.sampler.Sampler._sample_from_probs",
            sample_with_draws,
            "around",
        ),
        Hook(
            "sglang.srt.layers.sampler.Sampler._sample_from_logprobs",
            sample_logprobs_by_stream,
            "around",
        ),
        Hook(f"{RESULTS}.move_logprobs_to_cpu", collect, "after"),
        Hook(f"{LOGPROBS}.add_input_logprob_return_values", keep_from_sglang, "around"),
        Hook(
            "sglang.srt.mem_cache.unified_radix_cache.UnifiedRadixCache.session_records",
            add_family_rows,
            "after",
        ),
        Hook(
            "sglang.srt.model_executor.runner.decode_cuda_graph_runner"
            ".DecodeCudaGraphRunner._capture_one_stream",
            capture_both_graphs,
            "before",
        ),
    )


def http_hooks() -> tuple[Hook, ...]:
    """The hooks of the HTTP and the detokenizer process; `engine.http` says what each is for."""
    from . import http

    manager = "sglang.srt.managers.tokenizer_manager.TokenizerManager"
    openai = "sglang.srt.entrypoints.openai"
    messages = "sglang.srt.entrypoints.anthropic.serving.AnthropicServing"
    chat = f"{openai}.serving_chat.OpenAIServingChat"
    completion = f"{openai}.serving_completions.OpenAIServingCompletion"
    around: tuple[tuple[str, Callable[..., Any]], ...] = (
        ("sglang.srt.entrypoints.api_contract.generate_contract_error", http.contract_error),
        (f"{manager}.generate_request", http.generate),
        (f"{manager}._send_one_request", http.send_one_request),
        (f"{manager}.update_request_meta_info", http.take_results),
        (f"{manager}._wait_one_response", http.deliver),
        (f"{manager}._handle_batch_request", http.handle_batch),
        (f"{manager}.abort_request", http.abort_request),
        (f"{manager}._update_model_path_info", http.keep_served_name),
        (f"{messages}._convert_response", http.messages_answer),
        (f"{messages}._generate_anthropic_stream", http.messages_stream),
        (
            "sglang.srt.managers.detokenizer_manager.DetokenizerManager.trim_matched_stop",
            http.trim_stop,
        ),
        (f"{openai}.serving_base.OpenAIServingBase.handle_request", http.handle_request),
        (f"{chat}._process_messages", http.process_messages),
        (f"{chat}._build_token_logprobs_from_raw", http.chat_logprobs),
        (f"{chat}._generate_chat_stream", http.label_stream),
        (f"{completion}._generate_completion_stream", http.label_stream),
    )
    default = "sglang.srt.arg_groups.model_override_base.get_default_attn_backend"
    secrets = "sglang.srt.sampling.watermarking.core"
    return (
        *(Hook(target, hook, "around") for target, hook in around),
        Hook(default, prefer_ours, "after"),
        Hook(f"{secrets}.redact_watermark_secrets", http.hide_values, "after"),
        Hook(f"{secrets}.redact_watermark_command_line", http.hide_arguments, "around"),
    )


def prefer_ours(backend: str, *args: Any) -> str | None:
    """Hook after SGLang's choice of an attention backend where the user named none."""
    from sglang_multiverse.attention import prefer

    from .options import MultiverseArgs

    return prefer(backend, *args) if MultiverseArgs.from_env().enable else None


def page_hooks() -> tuple[Hook, ...]:
    """The hooks that put the playground on SGLang's server."""
    from .http import page

    return (
        Hook(f"{HTTP_SERVER}._setup_and_run_http_server", page.before_serving, "before"),
        Hook(f"{HTTP_SERVER}.init_multi_tokenizer", page.in_worker, "around"),
        Hook("sglang.srt.utils.auth.decide_request_auth", page.allow_page, "around"),
    )


def platform_hooks() -> tuple[Hook, ...]:
    """The hooks of the scheduler process on the platform `multiverse_cpu`."""
    from .pageable import in_pageable_memory
    from .platform import repack_weights, sleep_while_paused

    manager = "sglang.srt.lora.lora_manager.LoRAManager"
    pinning = (
        "__init__",
        "init_memory_pool",
        "load_lora_adapter",
        "load_lora_adapter_from_tensors",
        "update_lora_info",
        "fetch_new_loras",
        "prepare_lora_batch",
    )
    updater = "sglang.srt.model_executor.model_runner_components.weight_updater.WeightUpdater"
    writers = (
        "update_weights_from_disk",
        "load_weights_from_distributed",
        "update_weights_from_tensor",
        "update_weights_from_ipc",
        "end_weight_update",
    )
    return (
        *(Hook(f"{updater}.{writer}", repack_weights, "after") for writer in writers),
        Hook(
            f"{SCHEDULER}.Scheduler._record_scheduler_state_for_paused_engine",
            sleep_while_paused,
            "after",
        ),
        *(Hook(f"{manager}.{name}", in_pageable_memory, "around") for name in pinning),
    )


def launch_hooks() -> tuple[Hook, ...]:
    """The hook of our own launcher on the platform `multiverse_cpu`."""
    from .platform import fork_processes

    return (Hook("sglang.srt.entrypoints.engine._set_envs_and_config", fork_processes, "after"),)


def on_our_platform() -> bool:
    """Whether SGLang serves on `multiverse_cpu` in this process."""
    from sglang.srt.platforms import current_platform

    from .platform import MultiverseCpuPlatform

    return isinstance(current_platform, MultiverseCpuPlatform)


# `engine.http.reasoning` adds a parser to this registry, and derives it from this class.
REASONING_PARSERS = "sglang.srt.parser.reasoning_parser.ReasoningParser.DetectorMap"
REASONING_DETECTOR = "sglang.srt.parser.reasoning_parser.BaseReasoningFormatDetector"


def add_family_rows(records: dict[str, Any], tree_cache: Any) -> dict[str, Any]:
    """Hook after `session_records`: KV rows of families count as held, like a session's."""
    held = getattr(tree_cache, "multiverse_rows", None)
    return {**records, **held()} if held is not None else records


def scheduling_hooks() -> tuple[Hook, ...]:
    """What the scheduler cannot do without."""
    return (*http_hooks(), *scheduler_hooks(), *(platform_hooks() if on_our_platform() else ()))


def hooks_here() -> tuple[Hook, ...]:
    """The hooks of this process.

    Plugins load in every process. By then the scheduler's has imported the scheduler, and the one
    that serves HTTP has imported neither; a process that will fork the others has imported both.
    """
    if SCHEDULER not in sys.modules:
        return (*http_hooks(), *page_hooks())
    return (*scheduling_hooks(), *(page_hooks() if HTTP_SERVER in sys.modules else ()))


def register(hooks: Iterable[Hook]) -> None:
    """Have SGLang apply `hooks` when it has loaded its plugins."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    for hook in hooks:
        HookRegistry.register(hook.target, hook.hook, HookType(hook.type))


def check_hooks(hooks: Iterable[Hook]) -> None:
    """Raise `HookError` unless every one of `hooks` took effect in this process.

    SGLang logs a hook that fails to apply and goes on without it.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry

    missing = [hook.target for hook in hooks if hook.target not in HookRegistry._patched]
    if missing:
        raise HookError(f"Multiverse hooks did not apply: {', '.join(missing)}")


def resolve(target: str) -> Any:
    """The object a hook target names. Raises `AttributeError` or `ImportError` if it moved."""
    return pkgutil.resolve_name(target)
