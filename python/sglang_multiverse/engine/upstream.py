"""Every place where we touch SGLang's internals, and nothing else.

Raising the pin starts here: `test/engine/test_contract.py` fails with the name
of what moved.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .scheduler import MultiverseScheduler

SGLANG_VERSION = "0.5.23"

SCHEDULER = "sglang.srt.managers.scheduler"


class Hook(NamedTuple):
    """A hook as `sglang.srt.plugins.hook_registry.HookRegistry` takes it."""

    target: str
    hook: Callable[..., Any]
    type: str  # before, after, around or replace


class HookError(RuntimeError):
    """A hook did not take effect; serving without it would be silently wrong."""


def scheduler_hooks() -> tuple[Hook, ...]:
    """The hooks of the scheduler process."""
    from .positions import shift_positions
    from .sampling import mask_logits
    from .scheduler import MultiverseScheduler

    return (
        Hook(f"{SCHEDULER}.Scheduler", MultiverseScheduler, "replace"),
        Hook(
            "sglang.srt.model_executor.forward_batch_info.ForwardBatch.init_new",
            shift_positions,
            "after",
        ),
        Hook(
            "sglang.srt.sampling.sampling_batch_info.SamplingBatchInfo.apply_logits_bias",
            mask_logits,
            "after",
        ),
        Hook(
            "sglang.srt.mem_cache.unified_radix_cache.UnifiedRadixCache.session_records",
            add_family_rows,
            "after",
        ),
    )


def add_family_rows(records: dict[str, Any], tree_cache: Any) -> dict[str, Any]:
    """Hook after `session_records`: KV rows of families count as held, like a session's."""
    held = getattr(tree_cache, "multiverse_rows", None)
    return {**records, **held()} if held is not None else records


def in_scheduler_process() -> bool:
    """Plugins load in every process; only the scheduler's has imported this by then."""
    return SCHEDULER in sys.modules


def check_hooks() -> None:
    """Raise `HookError` unless every scheduler hook took effect in this process.

    SGLang logs a hook that fails to apply and goes on without it.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry

    missing = [hook.target for hook in scheduler_hooks() if hook.target not in HookRegistry._patched]
    if missing:
        raise HookError(f"Multiverse hooks did not apply: {', '.join(missing)}")


def resolve(target: str) -> Any:
    """The object a hook target names. Raises `AttributeError` or `ImportError` if it moved."""
    return pkgutil.resolve_name(target)


class UnsupportedError(ValueError):
    """A server option that cannot work with forks yet."""


def refuse_unsupported(scheduler: MultiverseScheduler) -> None:
    """Raise `UnsupportedError` naming the first flag that forks cannot work with yet."""
    from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

    args = scheduler.server_args
    rules: tuple[tuple[bool, str, str], ...] = (
        (
            not scheduler.spec_algorithm.is_none(),
            "--speculative-algorithm",
            "a draft may cross a fork",
        ),
        (scheduler.page_size > 1, "--page-size", "branches end inside a page; use 1"),
        (
            args.disaggregation_mode != "null",
            "--disaggregation-mode",
            "a family's KV lives in one pool",
        ),
        (args.pp_size > 1, "--pp-size", "a fork must see the step's result before the next one"),
        (
            bool(args.enable_dp_attention),
            "--enable-dp-attention",
            "forks add extends that the ranks have not agreed on",
        ),
        (
            bool(args.enable_hierarchical_cache),
            "--enable-hierarchical-cache",
            "a parked prefix must stay on the device",
        ),
        (
            bool(args.enable_mixed_chunk),
            "--enable-mixed-chunk",
            "a fork's extend is a batch of its own",
        ),
        (
            scheduler.is_hybrid_swa or scheduler.is_hybrid_ssm,
            "--model-path",
            "sliding-window and state-space layers keep state by row order, not by visibility",
        ),
        (
            not isinstance(scheduler.tree_cache, UnifiedRadixCache),
            "--radix-cache-backend",
            "families are counted by SGLang's own radix cache only",
        ),
    )
    for unsupported, flag, reason in rules:
        if unsupported:
            raise UnsupportedError(
                f"{flag}: not supported with a Multiverse model yet ({reason}). "
                "Drop the flag, or serve without forks: --no-multiverse-enable"
            )
