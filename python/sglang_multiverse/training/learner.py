"""The loss of a packed batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from .encode import IGNORE
from .packing import Packed


class Learner(nn.Module):
    """A causal language model whose forward pass is its loss.

    A module of its own, so that what wraps a model for many devices (DDP, FSDP)
    wraps the head together with the layers.

    Attributes:
        flex: attend with `flex_attention` block masks instead of dense ones.
    """

    def __init__(self, model: Any, *, flex: bool = False) -> None:
        super().__init__()
        self.model = model
        self.flex = flex

    def forward(self, batch: Packed) -> torch.Tensor:
        """The sum over labelled tokens of the cross entropy, float32 scalar.

        Only the hidden states that predict a labelled token meet the head: with
        a vocabulary of tens of thousands it is a large share of a small model.
        """
        # A peft model holds the one it adapts.
        adapted = hasattr(self.model, "get_base_model")
        causal = self.model.get_base_model() if adapted else self.model
        states = causal.model(**batch.inputs(flex=self.flex), use_cache=False).last_hidden_state
        labels = batch.labels[:, 1:]
        learned = labels != IGNORE
        logits = causal.lm_head(states[:, :-1][learned])
        return functional.cross_entropy(logits.float(), labels[learned], reduction="sum")
