"""SGLang's LoRA code where there is no memory to pin.

It pins every host tensor that a GPU will copy, without asking whether there is
a GPU, and torch refuses that on a plain CPU. There the tensor needs no copy at
all, so ordinary memory is what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class PageableMemory(TorchFunctionMode):
    """While it is entered, requests for pinned memory get ordinary memory."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if function is torch.Tensor.pin_memory:
            return args[0]
        wanted = {k: v for k, v in (kwargs or {}).items() if k != "pin_memory"}
        return function(*args, **wanted)


def in_pageable_memory(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Hook around what SGLang's `LoRAManager` does with host tensors."""
    with PageableMemory():
        return original(*args, **kwargs)
