"""The entry point of the `sglang.srt.plugins` group: loaded in every SGLang process."""

from __future__ import annotations

import os

from sglang_multiverse import attention

from . import upstream
from .http.reasoning import register_parser


def register() -> None:
    """Register the hooks this process needs."""
    upstream.register(upstream.hooks_here())
    register_parser()
    attention.register()
    if upstream.on_our_platform():
        from sglang_multiverse.cpu.registry import register_attention_backend

        register_attention_backend()
    # Which app SGLang's further HTTP processes import, unless the user has named another.
    os.environ.setdefault(upstream.APP_PATH_ENV, upstream.WORKER_APP)
