"""The loss of a packed batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .encode import IGNORE
from .frozen_head import FrozenVocabulary
from .packing import Packed

CHUNK = 1024
"""Tokens whose logits exist at the same time: those of a whole row can exceed a GPU's memory."""


class Learner(nn.Module):
    """A causal language model whose forward pass is its loss.

    A module of its own, so that what wraps a model for many devices (DDP, FSDP)
    wraps the head together with the layers.

    Attributes:
        flex: attend with `flex_attention` block masks instead of dense ones.
        vocabulary: stands in for the model's embedding and head where these do not learn.
    """

    def __init__(
        self, model: Any, *, flex: bool = False, vocabulary: FrozenVocabulary | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.flex = flex
        self.vocabulary = vocabulary

    def forward(self, batch: Packed) -> torch.Tensor:
        """The sum over labelled tokens of the cross entropy, float32 scalar.

        Only the hidden states that predict a labelled token meet the head: with
        a vocabulary of tens of thousands it is a large share of a small model.
        """
        # A peft model holds the one it adapts.
        adapted = hasattr(self.model, "get_base_model")
        causal = self.model.get_base_model() if adapted else self.model
        inputs = batch.inputs(flex=self.flex)
        if self.vocabulary is not None:
            inputs["inputs_embeds"] = self.vocabulary.embed(inputs.pop("input_ids"))
        states = causal.model(**inputs, use_cache=False).last_hidden_state
        labels = batch.labels[:, 1:]
        learned = labels != IGNORE
        states, labels = states[:, :-1][learned], labels[learned]
        if self.vocabulary is not None:
            return self.vocabulary.loss(states, labels)
        return _head_loss(causal.lm_head, states, labels)


def _head_loss(head: nn.Module, states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same sum, a chunk at a time; the logits are computed again for the gradient."""

    def part(some: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(head(some).float(), wanted, reduction="sum")

    # At least one, so that a batch without labels has a gradient, too: none.
    chunks = zip(states.split(CHUNK), labels.split(CHUNK), strict=True)
    losses = [checkpoint(part, *chunk, use_reentrant=False) for chunk in chunks]
    return torch.stack(losses).sum()
