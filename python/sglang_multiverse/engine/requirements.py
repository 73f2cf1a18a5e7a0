"""The options of SGLang that forks cannot work with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .upstream import APP_PATH_ENV, WORKER_APP

if TYPE_CHECKING:
    from .scheduler import MultiverseScheduler


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
        (
            args.disaggregation_mode != "null",
            "--disaggregation-mode",
            "a family's KV lives in one pool",
        ),
        (args.pp_size > 1, "--pp-size", "a family's rows would be in micro-batches that run apart"),
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
            scheduler.is_hybrid_swa or scheduler.is_hybrid_ssm,
            "--model-path",
            "sliding-window and state-space layers keep state by row order, not by visibility",
        ),
        (
            not isinstance(scheduler.tree_cache, UnifiedRadixCache),
            "--radix-cache-backend",
            "families are counted by SGLang's own radix cache only",
        ),
        (
            args.tokenizer_worker_num > 1 and os.environ.get(APP_PATH_ENV) != WORKER_APP,
            f"--tokenizer-worker-num with {APP_PATH_ENV}",
            f"the hooks are in {WORKER_APP} alone; leave the variable unset",
        ),
        (
            bool(args.grpc_mode or args.smg_grpc_mode or scheduler.rust_server is not None),
            "--grpc-mode / SGLANG_RUST_SERVER",
            "requests would not pass the hooks on SGLang's HTTP process",
        ),
        (bool(args.enable_pdmux), "--enable-pdmux", "it splits a prefill over several steps"),
        (
            bool(args.enable_lmcache),
            "--enable-lmcache",
            "it does not know of parked rows",
        ),
        (
            bool(args.enable_streaming_session),
            "--enable-streaming-session",
            "a session keeps rows that a family may hold",
        ),
    )
    for unsupported, flag, reason in rules:
        if unsupported:
            raise UnsupportedError(
                f"{flag}: not supported with a Multiverse model yet ({reason}). "
                "Drop the flag, or serve without forks: --no-multiverse-enable"
            )
