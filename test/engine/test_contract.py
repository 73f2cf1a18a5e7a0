"""What we rely on in SGLang, by name: a raised pin fails here first, and says what moved."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import pytest

from engine import upstream_use
from sglang_multiverse.engine import upstream

# What engine/penalties.py writes to: a penalizer's state, made in `_prepare`.
PENALIZER_STATE = {
    "BatchedFrequencyPenalizer": {"cumulated_frequency_penalties", "frequency_penalties"},
    "BatchedPresencePenalizer": {"cumulated_presence_penalties", "presence_penalties"},
    "BatchedRepetitionPenalizer": {"cumulated_repetition_penalties", "repetition_penalties"},
    "BatchedMinNewTokensPenalizer": {"len_output_tokens"},
}


@pytest.mark.parametrize("name", PENALIZER_STATE)
def test_a_penalizer_keeps_its_state_where_we_write(name: str) -> None:
    penalizer = upstream.resolve(f"sglang.srt.sampling.penaltylib.{name}")
    source = inspect.getsource(penalizer._prepare)
    assert all(f"self.{state} =" in source for state in PENALIZER_STATE[name])


def test_the_pin_is_what_is_installed() -> None:
    assert version("sglang") == upstream.SGLANG_VERSION


@pytest.mark.parametrize(
    "target",
    [
        hook.target
        for hook in (
            *upstream.scheduler_hooks(),
            *upstream.http_hooks(),
            *upstream.page_hooks(),
            *upstream.platform_hooks(),
            *upstream.launch_hooks(),
        )
    ],
)
def test_a_hook_target_is_there(target: str) -> None:
    assert callable(upstream.resolve(target))


def test_all_that_we_reach_is_there() -> None:
    reached = upstream_use.uses()
    assert len(reached) > 150  # the walk finds what it is for
    assert [found for use in reached if (found := upstream_use.problem(use))] == []


@pytest.mark.parametrize(
    "name",
    [
        "future_map",
        "output_tokens_buf",
        "pause_generation",
        "filter_batch",
        "prepare_for_extend",
        "send_abort_output",
        "_stop_match_tail_len",
        "kv_committed_len",
    ],
)
def test_a_removal_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    reached = upstream_use.uses()
    real = upstream_use.members
    monkeypatch.setattr(upstream_use, "members", lambda owner: real(owner) - {name})
    problems = [found for use in reached if (found := upstream_use.problem(use))]
    assert problems and all(f".{name} is gone" in problem for problem in problems)


def test_a_lost_parameter_is_named() -> None:
    target = "sglang.srt.managers.scheduler.Scheduler.abort_request"
    use = upstream_use.Use("override", target, "here", ("recv_req", "lost"))
    assert upstream_use.problem(use) == f"{target} has no parameter lost (here)"


def test_a_lost_import_is_named() -> None:
    use = upstream_use.Use("import", "sglang.srt.mem_cache.common.lost", "here")
    assert upstream_use.problem(use) == "sglang.srt.mem_cache.common.lost is gone (here)"


def test_the_registry_of_reasoning_parsers_is_there() -> None:
    assert "qwen3" in upstream.resolve(upstream.REASONING_PARSERS)
    detector = upstream.resolve(upstream.REASONING_DETECTOR)
    for name in ("detect_and_parse", "parse_streaming_increment", "finish"):
        assert callable(getattr(detector, name))


def test_a_hook_that_did_not_apply_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry

    targets = [hook.target for hook in upstream.scheduling_hooks()]
    monkeypatch.setattr(HookRegistry, "_patched", set(targets))
    upstream.check_hooks(upstream.scheduling_hooks())
    monkeypatch.setattr(HookRegistry, "_patched", set(targets[1:]))
    with pytest.raises(upstream.HookError, match=targets[0]):
        upstream.check_hooks(upstream.scheduling_hooks())
