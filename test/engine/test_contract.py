"""What we rely on in SGLang, by name: a raised pin fails here first, and says what moved."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import pytest

from sglang_multiverse.engine import upstream

SCHEDULER = "sglang.srt.managers.scheduler.Scheduler"
REQ = "sglang.srt.managers.schedule_batch.Req"
TREE = "sglang.srt.mem_cache.unified_radix_cache.UnifiedRadixCache"
POOL = "sglang.srt.mem_cache.memory_pool.ReqToTokenPool"
COMMON = "sglang.srt.mem_cache.common"

# What engine/ overrides or calls → parameters that it passes or receives.
PARAMETERS = {
    f"{SCHEDULER}.get_next_batch_to_run": {"running_batch", "last_batch"},
    f"{SCHEDULER}.get_new_batch_prefill": {"running_batch"},
    f"{SCHEDULER}.update_running_batch": {"batch"},
    f"{SCHEDULER}.process_batch_result": {"batch", "result"},
    f"{SCHEDULER}.abort_request": {"recv_req"},
    f"{SCHEDULER}._add_request_to_queue": {"req", "is_retracted"},
    f"{SCHEDULER}.is_fully_idle": {"ignore_waiting"},
    f"{REQ}.update_finish_state": {"new_accepted_len"},
    f"{REQ}.init_next_round_input": {"tree_cache", "cow_mamba"},
    f"{REQ}.refresh_fill_ids": set(),
    f"{REQ}.reset_for_retract": set(),
    f"{REQ}._check_str_based_finish": set(),
    f"{REQ}._check_token_based_finish": set(),
    f"{REQ}._compute_max_prefix_len": set(),
    f"{TREE}.checkpoint": {"req", "up_to"},
    f"{TREE}.session_records": set(),
    f"{TREE}.evictable_size": set(),
    f"{POOL}.alloc_rows": set(),
    f"{POOL}.free": {"req"},
    f"{COMMON}.release_kv_cache": {"req", "tree_cache", "checkpoint"},
    f"{COMMON}.match_kv_cache": {"req", "tree_cache", "token_ids", "max_prefix_len"},
}


def test_the_pin_is_what_is_installed() -> None:
    assert version("sglang") == upstream.SGLANG_VERSION


@pytest.mark.parametrize(
    "target", [hook.target for hook in (*upstream.scheduler_hooks(), *upstream.http_hooks())]
)
def test_a_hook_target_is_there(target: str) -> None:
    assert callable(upstream.resolve(target))


@pytest.mark.parametrize("target", PARAMETERS)
def test_what_we_override_or_call_has_its_parameters(target: str) -> None:
    found = inspect.signature(upstream.resolve(target)).parameters
    assert PARAMETERS[target] <= set(found), f"{target} moved: {sorted(found)}"


def test_the_registry_of_reasoning_parsers_is_there() -> None:
    assert "qwen3" in upstream.resolve(upstream.REASONING_PARSERS)
    detector = upstream.resolve(upstream.REASONING_DETECTOR)
    for name in ("detect_and_parse", "parse_streaming_increment", "finish"):
        assert callable(getattr(detector, name))


def test_a_hook_that_did_not_apply_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry

    targets = [h.target for h in (*upstream.scheduler_hooks(), *upstream.http_hooks())]
    monkeypatch.setattr(HookRegistry, "_patched", set(targets))
    upstream.check_hooks()
    monkeypatch.setattr(HookRegistry, "_patched", set(targets[1:]))
    with pytest.raises(upstream.HookError, match=targets[0]):
        upstream.check_hooks()
