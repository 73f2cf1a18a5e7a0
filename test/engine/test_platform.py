"""The CPU platform: when it is active, what it fills in, and what it leaves alone."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from sglang.srt.platforms.device_mixin import CpuArchEnum, PlatformEnum
from sglang.srt.plugins.hook_registry import HookRegistry

from server import Server
from sglang_multiverse.cpu import memory, registry
from sglang_multiverse.engine import platform
from sglang_multiverse.engine.platform import MultiverseCpuPlatform

ACTIVE = "sglang_multiverse.engine.platform:MultiverseCpuPlatform"
needs_cpu_only = pytest.mark.skipif(
    platform.has_accelerator(), reason="this machine has an accelerator"
)


@pytest.fixture
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No accelerator, nothing chosen by the user, no other platform installed."""
    monkeypatch.setattr(platform, "has_accelerator", lambda: False)
    monkeypatch.setattr(platform, "entry_points", lambda group: [])
    monkeypatch.setattr(sys, "argv", ["serve", "--model-path", "m"])
    monkeypatch.delenv("SGLANG_USE_CPU_ENGINE", raising=False)
    monkeypatch.delenv("SGLANG_PLATFORM", raising=False)
    return monkeypatch


# ---- when it is active ----


def test_active_where_nothing_else_is(plain_machine: pytest.MonkeyPatch) -> None:
    assert platform.activate() == ACTIVE


def test_not_beside_an_accelerator(plain_machine: pytest.MonkeyPatch) -> None:
    plain_machine.setattr(platform, "has_accelerator", lambda: True)
    assert platform.activate() is None


@pytest.mark.parametrize(
    ("variable", "value", "active"),
    [
        ("SGLANG_USE_CPU_ENGINE", "1", False),
        ("SGLANG_USE_CPU_ENGINE", "0", True),
        ("SGLANG_PLATFORM", "somebody_elses", False),
        ("SGLANG_PLATFORM", "multiverse_cpu", True),
    ],
)
def test_environment_is_the_users_choice(
    plain_machine: pytest.MonkeyPatch, variable: str, value: str, active: bool
) -> None:
    plain_machine.setenv(variable, value)
    assert platform.activate() == (ACTIVE if active else None)


@pytest.mark.parametrize(
    ("arguments", "active"),
    [
        (["--device", "cuda"], False),
        (["--device=xpu"], False),
        (["--device", "cuda:1"], False),
        (["--device", "cpu"], True),
        (["--device", "cuda", "--device", "cpu"], True),  # as argparse: the last one counts
        (["--device"], True),  # SGLang refuses it
    ],
)
def test_device_flag_is_the_users_choice(
    plain_machine: pytest.MonkeyPatch, arguments: list[str], active: bool
) -> None:
    plain_machine.setattr(sys, "argv", ["serve", *arguments])
    assert platform.activate() == (ACTIVE if active else None)


def _entry(name: str, load: Callable[[], Any]) -> SimpleNamespace:
    return SimpleNamespace(name=name, load=load)


def test_gives_way_to_a_platform_that_activates(plain_machine: pytest.MonkeyPatch) -> None:
    vendor = _entry("vendor", lambda: lambda: "vendor.platform:Platform")
    plain_machine.setattr(platform, "entry_points", lambda group: [vendor])
    assert platform.activate() is None


def test_ignores_platforms_that_do_not_or_cannot(plain_machine: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise ImportError("no driver")

    others = [
        _entry("absent", lambda: lambda: None),
        _entry("broken", broken),
        _entry("multiverse_cpu", lambda: pytest.fail("must not ask itself")),
    ]
    plain_machine.setattr(platform, "entry_points", lambda group: others)
    assert platform.activate() == ACTIVE


@pytest.mark.parametrize("name", ["cuda", "xpu", "mps", "npu", "hpu"])
def test_every_kind_of_accelerator_counts(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for other in platform._ACCELERATORS:
        monkeypatch.setattr(
            torch, other, SimpleNamespace(is_available=lambda: False), raising=False
        )
    assert not platform.has_accelerator()
    monkeypatch.setattr(torch, name, SimpleNamespace(is_available=lambda: True))
    assert platform.has_accelerator()


# ---- memory and dtype ----


@pytest.mark.parametrize(
    ("capabilities", "native"),
    [
        ({"avx512_f": True, "avx512_bw": True}, False),  # torch would emulate bf16
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": False}, False),
        ({"neon": True, "bf16": True}, True),
    ],
)
def test_native_bf16(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert platform.has_native_bf16() is native


@pytest.mark.parametrize(
    ("auto", "native", "chosen"),
    [
        (torch.bfloat16, True, "bfloat16"),
        (torch.bfloat16, False, "float32"),
        (torch.float16, True, "float32"),  # also what `auto` makes of float32 checkpoints
    ],
)
def test_default_dtype(
    monkeypatch: pytest.MonkeyPatch, auto: torch.dtype, native: bool, chosen: str
) -> None:
    monkeypatch.setattr(platform, "has_native_bf16", lambda: native)
    config: Any = SimpleNamespace(dtype=auto)
    assert platform._default_dtype(config) == chosen


def test_a_containers_limit_is_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gib = 1 << 30
    machine = SimpleNamespace(total=64 * gib, available=60 * gib)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: machine)
    monkeypatch.setattr(memory, "_read_limit", lambda path: None)
    assert memory.usable_memory() == memory.Memory(64 * gib, 60 * gib)
    files = {"/sys/fs/cgroup/memory.max": 8 * gib, "/sys/fs/cgroup/memory.current": 3 * gib}
    monkeypatch.setattr(memory, "_read_limit", files.get)
    assert memory.usable_memory() == memory.Memory(8 * gib, 5 * gib)


def test_no_limit_is_not_a_number(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("max\n")
    assert memory._read_limit(str(limit)) is None
    limit.write_text("1024\n")
    assert memory._read_limit(str(limit)) == 1024
    assert memory._read_limit(str(tmp_path / "none")) is None


def test_kv_pool_takes_a_share_of_memory() -> None:
    # SmolLM2-135M: 30 layers, 3 KV heads of 64, so 46080 bytes per token in fp32.
    config: Any = SimpleNamespace(
        num_attention_layers=30,
        head_dim=64,
        v_head_dim=64,
        context_len=8192,
        get_num_kv_heads=lambda tp: 3,
    )
    assert memory.kv_token_bytes(config, torch.float32) == 46080
    laptop = 8 << 30
    tokens = memory.default_max_total_tokens(config, torch.float32, laptop)
    assert tokens == (1 << 30) // 46080
    # However large the machine, no more than the contexts it can serve.
    assert memory.default_max_total_tokens(config, torch.float32, 1 << 50) == 64 * 8192


# ---- what SGLang makes of it ----


@pytest.fixture
def resolve(tiny_path: Path, plain_machine: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Resolve server arguments the way a launch does."""
    from sglang.srt.server_args import ServerArgs

    def run(**asked: Any) -> dict[str, Any]:
        args = ServerArgs(model_path=str(tiny_path), **asked)
        args.resolve_once()
        return args.resolved_dict()

    return run


@needs_cpu_only
def test_a_model_path_is_enough(resolve: Callable[..., dict[str, Any]]) -> None:
    got = resolve()
    assert got["device"] == "cpu"
    assert got["attention_backend"] == registry.default_attention_backend()
    assert got["sampling_backend"] == "pytorch"
    assert got["dtype"] == "float32"  # the tiny model is stored in fp32
    assert got["disable_overlap_schedule"] is True
    assert got["max_running_requests"] == 256
    assert got["mem_fraction_static"] == 0.8
    assert got["sleep_on_idle"] is True
    assert 1024 <= got["max_total_tokens"] <= 64 * 8192


@needs_cpu_only
@pytest.mark.parametrize(
    "asked",
    [
        {"dtype": "float16"},  # never the default, on any CPU
        {"dtype": "bfloat16"},
        {"attention_backend": "flex_attention"},
        {"max_total_tokens": 4321},
        {"max_running_requests": 7},
        {"mem_fraction_static": 0.33},
        {"device": "cpu", "dtype": "float32", "max_total_tokens": 99},
    ],
    ids=lambda asked: "-".join(asked),
)
def test_what_the_user_asked_for_stays(
    resolve: Callable[..., dict[str, Any]], asked: dict[str, Any]
) -> None:
    got = resolve(**asked)
    assert {name: got[name] for name in asked} == asked


@needs_cpu_only
@pytest.mark.parametrize(
    ("value", "asked", "sleeps"),
    [("0", False, False), ("0", True, True), ("1", False, True), ("", False, True)],
)
def test_a_server_may_poll_if_told_to(
    resolve: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    asked: bool,
    sleeps: bool,
) -> None:
    monkeypatch.setenv(platform.SLEEP_ENV, value)
    assert resolve(sleep_on_idle=asked)["sleep_on_idle"] is sleeps


def test_a_switch_that_is_neither_on_nor_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(platform.SLEEP_ENV, "no")
    with pytest.raises(ValueError, match=f"{platform.SLEEP_ENV}='no': allowed are 0"):
        platform.sleeps_on_idle(False)


@pytest.mark.parametrize(
    ("system", "copies", "busy", "forks"),
    [
        ("linux", 1, False, True),
        ("linux", 2, False, False),
        ("linux", 1, True, False),
        ("darwin", 1, False, False),
    ],
)
def test_processes_are_forked_where_that_is_sound(
    monkeypatch: pytest.MonkeyPatch, system: str, copies: int, busy: bool, forks: bool
) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(multiprocessing, "set_start_method", lambda how, force: chosen.append(how))
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(threading, "active_count", lambda: 2 if busy else 1)
    platform.fork_processes(None, SimpleNamespace(dp_size=copies))
    assert chosen == (["fork"] if forks else [])


@pytest.mark.server
def test_what_is_imported_is_shared(server: Server) -> None:
    """A detokenizer that imports for itself holds some 460 MiB of its own."""
    assert server.process is not None
    started = psutil.Process(server.process.pid).children(recursive=True)
    assert len(started) == 2  # the other is the scheduler
    assert min(process.memory_full_info().uss for process in started) < 120 * 2**20


@pytest.mark.parametrize("asked", [None, "intel_amx"])
def test_amx_kernels_only_on_request(monkeypatch: pytest.MonkeyPatch, asked: str | None) -> None:
    """SGLang chooses them for every x86 CPU; where they are installed, it would keep them."""
    from sglang.srt.arg_groups import overrides

    config = SimpleNamespace(dtype=torch.float32)
    monkeypatch.setattr(overrides, "model_config_of", lambda args: config)
    raw = {
        "attention_backend": asked,
        "dtype": "float32",
        "max_running_requests": 1,
        "mem_fraction_static": 0.5,
        "max_total_tokens": 1024,
        "sleep_on_idle": False,
    }
    args = SimpleNamespace(
        **{**raw, "attention_backend": "intel_amx"},
        device="cpu",
        enable_torch_compile=False,
        enable_lora=None,
        lora_paths=None,
        _raw_input=raw,
    )
    MultiverseCpuPlatform().apply_server_args_defaults(args)
    assert args.attention_backend == (asked or registry.default_attention_backend())


@needs_cpu_only
def test_a_flag_that_cannot_work_is_refused(resolve: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="--enable-torch-compile"):
        resolve(enable_torch_compile=True)


@needs_cpu_only
def test_lora_runs_on_torch(resolve: Callable[..., dict[str, Any]]) -> None:
    lora = {"enable_lora": True, "max_lora_rank": 8, "lora_target_modules": ["q_proj"]}
    assert resolve(**lora)["lora_backend"] == "torch_native"
    with pytest.raises(ValueError, match=r"--lora-backend triton: .*torch_native"):
        resolve(**lora, lora_backend="triton")
    with pytest.raises(ValueError, match="--enable-lora-overlap-loading"):
        resolve(**lora, enable_lora_overlap_loading=True)


@needs_cpu_only
def test_sglang_takes_it_for_the_platform() -> None:
    from sglang.srt.platforms import current_platform
    from sglang.srt.utils import get_device

    assert isinstance(current_platform, MultiverseCpuPlatform)
    assert current_platform._enum is PlatformEnum.OOT
    assert not current_platform.is_cpu()
    assert get_device() == "cpu"
    available, total = current_platform.get_available_memory()
    assert 0 < available < total


@pytest.mark.parametrize(
    ("architecture", "hooked"), [(CpuArchEnum.ARM, True), (CpuArchEnum.X86, False)]
)
def test_arm64_does_not_need_sglangs_cpu_kernels(
    monkeypatch: pytest.MonkeyPatch, architecture: CpuArchEnum, hooked: bool
) -> None:
    hooks: dict[str, Any] = {}
    monkeypatch.setattr(
        HookRegistry, "register", lambda target, hook, kind: hooks.update({target: hook})
    )
    monkeypatch.setattr(MultiverseCpuPlatform, "cpu_arch", architecture)
    MultiverseCpuPlatform()
    assert (platform.THREAD_PINNING in hooks) is hooked
    if hooked:
        calls: list[int] = []
        hooks[platform.THREAD_PINNING](lambda **kwargs: calls.append(1), local_omp_cpuid=None)
        has_kernels = hasattr(torch.ops.sgl_kernel, "init_cpu_threads_env")
        assert len(calls) == int(has_kernels)


def test_thread_pinning_has_not_moved() -> None:
    import pkgutil

    assert callable(pkgutil.resolve_name(platform.THREAD_PINNING))
