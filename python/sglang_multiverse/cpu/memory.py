"""How much memory a server on a CPU may use, and how much of it is for KV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil
import torch

if TYPE_CHECKING:
    from sglang.srt.configs.model_config import ModelConfig

_KV_SHARE = 1 / 8  # of the machine's memory, for the KV pool
_KV_CONTEXTS = 64  # full contexts, at most, that the pool need hold


class Memory(NamedTuple):
    """Bytes of memory that this process may use, and that are free."""

    total: int
    available: int


def _read_limit(path: str) -> int | None:
    """A cgroup file's number; None if there is none, or no limit."""
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def usable_memory() -> Memory:
    """Memory of the machine or, in a container, of its cgroup."""
    machine = psutil.virtual_memory()
    total, available = int(machine.total), int(machine.available)
    for limit_file, usage_file in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        limit, usage = _read_limit(limit_file), _read_limit(usage_file)
        if limit is not None and limit < total:
            total = limit
            available = min(available, max(0, limit - (usage or 0)))
    return Memory(total, available)


def kv_token_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes of KV per token, all layers, before tensor parallelism divides them."""
    heads = config.get_num_kv_heads(1)
    width = config.head_dim + config.v_head_dim
    return int(config.num_attention_layers * heads * width * dtype.itemsize)


def default_max_total_tokens(config: ModelConfig, dtype: torch.dtype, total_memory: int) -> int:
    """A KV pool that leaves a laptop usable.

    SGLang's own default takes what the weights leave, which suits the memory of
    a GPU and not memory that the browser next to it needs as well.
    """
    by_memory = int(total_memory * _KV_SHARE) // max(1, kv_token_bytes(config, dtype))
    return max(1024, min(by_memory, _KV_CONTEXTS * config.context_len))
