"""SGLang on a plain CPU: the out-of-tree platform `multiverse_cpu`.

SGLang looks for platforms in the entry-point group `sglang.srt.platforms` and
calls `activate` in every process, while its own modules are being imported.
Two rules follow. Nothing heavy is imported at the top of this module. And the
platform stays out of the way wherever an accelerator is found, or where the
user asked for something else.

On such a machine SGLang alone cannot serve: without a platform it asks for
vLLM's kernels, and its own CPU engine needs AMX. This one routes every
operator to its torch-native form, which needs no instruction set in particular.
"""

from __future__ import annotations

import gc
import importlib.util
import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import torch
from sglang.srt.platforms.cpu import CpuSRTPlatform
from sglang.srt.platforms.device_mixin import CpuArchEnum, PlatformEnum
from sglang.srt.plugins.hook_registry import HookRegistry, HookType

from sglang_multiverse.cpu import has_native_bf16
from sglang_multiverse.cpu.memory import default_max_total_tokens, usable_memory
from sglang_multiverse.cpu.registry import default_attention_backend

from .upstream import THREAD_PINNING

if TYPE_CHECKING:
    from sglang.srt.configs.model_config import ModelConfig

logger = logging.getLogger(__name__)

PLATFORM_NAME = "multiverse_cpu"
# SGLang's `--sleep-on-idle` can be set but not unset, so the way back is here.
SLEEP_ENV = "SGLANG_MULTIVERSE_SLEEP_ON_IDLE"
# Overlap scheduling here too: slower, but the loop that runs on GPUs (tests).
OVERLAP_ENV = "SGLANG_MULTIVERSE_CPU_OVERLAP"
_GROUP = "sglang.srt.platforms"
_QUALNAME = f"{__name__}:MultiverseCpuPlatform"

# torch modules whose `is_available()` says that an accelerator can be used. A
# backend that ships apart from torch (npu, musa, hpu) appears as an attribute
# once its package is installed, because torch loads such backends by itself.
_ACCELERATORS = ("cuda", "xpu", "mps", "npu", "musa", "hpu", "mtia")

_MEMORY_FRACTION = 0.8  # of what is free before the model loads, for weights and KV
# Rows of the request table; each costs 4 bytes per position of the context.
_MAX_RUNNING_REQUESTS = 256


def activate() -> str | None:
    """The platform's name for SGLang, or None where it must stay out of the way."""
    if os.environ.get("SGLANG_USE_CPU_ENGINE") == "1":
        return None
    if os.environ.get("SGLANG_PLATFORM", "") not in ("", PLATFORM_NAME):
        return None
    if requested_device(sys.argv[1:]) not in (None, "cpu"):
        return None
    if has_accelerator() or _another_platform_activates():
        return None
    return _QUALNAME


def requested_device(argv: Sequence[str]) -> str | None:
    """What the command line says after `--device`, without an index; None if nothing."""
    device: str | None = None
    for position, argument in enumerate(argv):
        if argument == "--device" and position + 1 < len(argv):
            device = argv[position + 1]
        elif argument.startswith("--device="):
            device = argument.partition("=")[2]
    return None if device is None else device.split(":")[0]


def has_accelerator() -> bool:
    """Whether torch, as installed, can use anything but the CPU."""
    if importlib.util.find_spec("habana_frameworks") is not None:
        return True
    for name in _ACCELERATORS:
        is_available = getattr(getattr(torch, name, None), "is_available", None)
        if is_available is not None and is_available():
            return True
    # torch_musa is reached through another package, so the build alone tells.
    return getattr(torch.version, "musa", None) is not None


def _another_platform_activates() -> bool:
    """Whether a vendor's platform claims this machine; SGLang refuses to start with two."""
    for entry_point in entry_points(group=_GROUP):
        if entry_point.name == PLATFORM_NAME:
            continue
        try:
            if entry_point.load()() is not None:
                return True
        except Exception:  # SGLang reports a broken platform itself.
            continue
    return False


def _pin_threads_if_possible(original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    """On arm64 SGLang takes its own CPU kernels for granted; the wheel may not have them."""
    if hasattr(torch.ops.sgl_kernel, "init_cpu_threads_env"):
        original(*args, **kwargs)
    else:
        logger.info("SGLang's CPU kernels are not installed: threads stay where the OS puts them.")


def fork_processes(_result: None, server_args: Any) -> None:
    """Hook after SGLang chose how to start its processes: fork them, with all that is imported.

    Spawned, each of three imports the same for eight seconds of a core, and has 300 MB for
    itself. Forking is sound while nothing else runs in this process, which our launcher has not
    used for anything but imports; OpenBLAS, whose threads come with them, knows forks. SGLang's
    controller of several copies starts them from threads, so that there it stays with spawning.
    """
    alone = threading.active_count() == 1 and server_args.dp_size == 1
    if sys.platform == "linux" and alone:
        # Pages stay shared as long as no collection writes to the objects on them.
        gc.collect()
        gc.freeze()
        multiprocessing.set_start_method("fork", force=True)


def sleep_while_paused(_result: None, scheduler: Any) -> None:
    """Hook after a turn of a paused scheduler's loop: wait for a message, as when idle.

    SGLang polls here without end. Nothing can run before a message says so, and
    the wait ends with the message, or after a second.
    """
    scheduler.maybe_sleep_on_idle()


def repack_weights(_result: Any, updater: Any, *_args: Any, **_kwargs: Any) -> None:
    """Hook after SGLang wrote to the model's weights: the compiled copy of them is old."""
    compiled = getattr(updater.get_model(), "multiverse_compiled", None)
    if compiled is not None:
        compiled.forget()


def sleeps_on_idle(asked: bool) -> bool:
    """Whether an idle scheduler waits for a message in place of polling for one.

    A poll keeps a whole core busy, which a GPU's host may spare and a CPU that
    also computes the model may not.

    Raises:
        ValueError: the environment variable is neither 0 nor 1.
    """
    value = os.environ.get(SLEEP_ENV) or "1"
    if value not in ("0", "1"):
        raise ValueError(f"{SLEEP_ENV}={value!r}: allowed are 0 (poll) and 1 (sleep, the default)")
    return asked or value == "1"


def lora_backend(asked: str) -> str:
    """SGLang's default cannot be told from the same name given by the user: both mean ours.

    Raises:
        ValueError: another backend was asked for; their kernels need an accelerator.
    """
    if asked not in ("csgmv", "torch_native"):
        raise ValueError(
            f"--lora-backend {asked}: its kernels need an accelerator; "
            "use torch_native, or leave the flag out"
        )
    return "torch_native"


class MultiverseCpuPlatform(CpuSRTPlatform):
    """Any x86-64 or arm64 CPU, through torch-native operators."""

    # SGLang's own CPU platform stands for its AMX kernels; code that asks
    # `is_cpu()` must not take us for it.
    _enum = PlatformEnum.OOT

    def __init__(self) -> None:
        super().__init__()
        if self.cpu_arch == CpuArchEnum.ARM:
            HookRegistry.register(THREAD_PINNING, _pin_threads_if_possible, HookType.AROUND)

    # ---- operators ----

    def get_default_attention_backend(self) -> str:
        return default_attention_backend()

    def get_dispatch_key_name(self) -> str:
        return "native"

    # ---- device ----

    # The annotated return type upstream is a string, and the one caller that
    # fills in a missing `--device` splits it; the parent returns a torch.device.
    def get_device(self, device_id: int | None = 0) -> str:  # type: ignore[override]
        return "cpu"

    def get_device_total_memory(self, device_id: int = 0) -> int:
        return usable_memory().total

    def get_current_memory_usage(self, device: torch.device | None = None) -> float:
        memory = usable_memory()
        return float(memory.total - memory.available)

    def get_available_memory(self, device_id: int = 0) -> tuple[int, int]:
        memory = usable_memory()
        return memory.available, memory.total

    def get_torch_profiler_activity_str(self) -> str:
        return "CPU"

    def get_torch_profiler_activity(self) -> torch.profiler.ProfilerActivity:
        return torch.profiler.ProfilerActivity.CPU

    # ---- configuration ----

    def apply_server_args_defaults(self, server_args: Any) -> None:
        """Fill in what a CPU needs and the user left open.

        `server_args` reads as the configuration resolved so far; what is
        assigned here is recorded as a decision of this platform.

        Raises:
            ValueError: naming a flag that cannot work here.
        """
        if server_args.device != "cpu":
            return
        if server_args.enable_torch_compile:
            raise ValueError(
                f"--enable-torch-compile: the platform {PLATFORM_NAME} has no graph runner; "
                "leave the flag out"
            )
        asked = server_args._raw_input
        if server_args.enable_lora or server_args.lora_paths:
            server_args.lora_backend = lora_backend(asked["lora_backend"])
            if server_args.enable_lora_overlap_loading:
                raise ValueError(
                    "--enable-lora-overlap-loading: a CPU has no second stream to load on; "
                    "leave the flag out"
                )

        # SGLang has already written its AMX kernels here if nothing was asked.
        if asked["attention_backend"] is None:
            server_args.attention_backend = self.get_default_attention_backend()
        # Overlap needs a second stream to run on; a CPU has none, so that it gains nothing.
        if os.environ.get(OVERLAP_ENV) != "1":
            server_args.disable_overlap_schedule = True
        server_args.sleep_on_idle = sleeps_on_idle(bool(asked["sleep_on_idle"]))
        if asked["max_running_requests"] is None:
            server_args.max_running_requests = _MAX_RUNNING_REQUESTS
        if asked["mem_fraction_static"] is None:
            server_args.mem_fraction_static = _MEMORY_FRACTION

        from sglang.srt.arg_groups.overrides import model_config_of

        config = model_config_of(server_args)
        if asked["dtype"] == "auto":
            server_args.dtype = _default_dtype(config)
        dtype = getattr(torch, server_args.dtype, torch.float32)
        if asked["max_total_tokens"] is None:
            server_args.max_total_tokens = default_max_total_tokens(
                config, dtype, usable_memory().total
            )
        logger.info(
            "No accelerator found: serving on the CPU with dtype=%s, attention_backend=%s, "
            "max_total_tokens=%d.",
            server_args.dtype,
            server_args.attention_backend,
            server_args.max_total_tokens,
        )


def _default_dtype(config: ModelConfig) -> str:
    """bfloat16 where the checkpoint has it and the CPU is made for it, else float32.

    SGLang's `auto` would give float16 for a float32 checkpoint, and emulated
    half precision is 10 to 300 times slower than float32.
    """
    # `config.dtype` is what `auto` came to; a float32 checkpoint is float16 there.
    return "bfloat16" if config.dtype == torch.bfloat16 and has_native_bf16() else "float32"
