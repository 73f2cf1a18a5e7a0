"""The compiled attention among SGLang's backends, and whether it can be the default."""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger(__name__)

NAME = "multiverse_cpu"
# What stands in where its library does not load.
_FALLBACK = "torch_native"


def register_attention_backend() -> None:
    """Make the compiled attention known to SGLang, in each process, by its name."""
    from sglang.srt.arg_groups import choices
    from sglang.srt.layers.attention import attention_registry

    def create(runner: Any) -> Any:
        from .backend import create_backend

        return create_backend(runner)

    attention_registry.register_attention_backend(NAME)(create)
    if NAME not in choices.ATTENTION_BACKEND_CHOICES:
        choices.add_attention_backend_choices([NAME])


def default_attention_backend() -> str:
    """Ours, unless its library or our plugin is missing."""
    from sglang.srt.arg_groups import choices

    from ..kernels.cpu.library import available

    if NAME not in choices.ATTENTION_BACKEND_CHOICES:
        return _FALLBACK
    reason = available()
    if reason is not None:
        logger.warning("Attention runs on %s: %s", _FALLBACK, reason)
        return _FALLBACK
    return NAME
