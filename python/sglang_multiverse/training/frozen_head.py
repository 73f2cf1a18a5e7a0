"""The two ends of a language model whose vocabulary is frozen except for a few rows.

A small model spends much of a step on its vocabulary: peft's rows copy the
matrix on every pass and compute the gradient of all of it, and the logits of a
batch are stored, widened and read again. Here the matrix has no gradient, the
rows have their own, and the logits live for `CHUNK` tokens at a time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

CHUNK = 256
"""Tokens whose logits exist at the same time. With fewer, the head is read more often."""


class FrozenVocabulary:
    """Embedding and head of a causal language model in which only `ids` learn.

    No module of its own: the parameters stay the model's, which saves and names them.

    Args:
        inputs, outputs: float32 `[v, h]`; the same tensor where they are tied.
        ids: int64 `[r]`, the rows that learn; may be empty.
        input_rows, output_rows: float32 `[r, h]`, what stands at `ids` instead.
        dtype: of the products with the head.
    """

    def __init__(
        self,
        inputs: torch.Tensor,
        outputs: torch.Tensor,
        ids: torch.Tensor,
        input_rows: torch.Tensor,
        output_rows: torch.Tensor,
        dtype: torch.dtype,
    ) -> None:
        self._inputs = inputs.detach()
        self._head = outputs.detach().to(dtype, copy=True)
        self._ids = ids
        self._input_rows, self._output_rows = input_rows, output_rows

    def embed(self, input_ids: torch.Tensor) -> torch.Tensor:
        """int64 `[b, n]` → float32 `[b, n, h]`."""
        states = functional.embedding(input_ids, self._inputs)
        *at, which = (input_ids[..., None] == self._ids).nonzero(as_tuple=True)
        return states.index_put(tuple(at), self._input_rows[which])

    def loss(self, states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The sum of the cross entropy of `labels`, int64 `[m]`, after `states`, `[m, h]`."""
        rows = self._output_rows
        with torch.no_grad():
            self._head[self._ids] = rows.to(self._head.dtype)
        # The dtypes are chosen here, product by product.
        with torch.autocast(states.device.type, enabled=False):
            total: torch.Tensor = _HeadLoss.apply(states, rows, self._head, self._ids, labels)
        return total


def frozen_vocabulary(adapted: Any, dtype: torch.dtype) -> FrozenVocabulary:
    """The vocabulary of a model that `adapter.adapt` wrapped."""
    causal = adapted.get_base_model()
    ends = causal.get_input_embeddings(), causal.get_output_embeddings()
    inputs, outputs = (getattr(end, "token_adapter", None) for end in ends)
    if inputs is None or outputs is None:
        weight = ends[0].weight
        none, ids = weight.new_empty(0, weight.shape[1]), torch.empty(0, dtype=torch.int64)
        return FrozenVocabulary(weight, ends[1].weight, ids, none, none, dtype)
    (name,) = inputs.token_indices
    return FrozenVocabulary(
        inputs.base_layer.weight,
        outputs.base_layer.weight,
        torch.tensor(inputs.token_indices[name]),
        inputs.trainable_tokens_delta[name],
        outputs.trainable_tokens_delta[name],
        dtype,
    )


class _HeadLoss(torch.autograd.Function):
    """Cross entropy is its own gradient's last use of the logits, so both are computed at once."""

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        rows: torch.Tensor,
        head: torch.Tensor,
        ids: torch.Tensor,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        to_states = torch.empty_like(states)
        to_rows = torch.zeros_like(rows)
        total = states.new_zeros((), dtype=torch.float32)
        for lo in range(0, len(states), CHUNK):
            part = states[lo : lo + CHUNK].to(head.dtype)
            wanted = labels[lo : lo + CHUNK, None]
            logprobs = (part @ head.T).float().log_softmax(1)
            total -= logprobs.gather(1, wanted).sum()
            # From here on the gradient with respect to the logits: softmax minus one-hot.
            slope = logprobs.exp_()
            slope.scatter_add_(1, wanted, slope.new_full(wanted.shape, -1.0))
            to_rows += slope[:, ids].T @ part.float()
            to_states[lo : lo + CHUNK] = slope.to(head.dtype) @ head
        ctx.save_for_backward(to_states, to_rows)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (by,) = gradients
        to_states, to_rows = ctx.saved_tensors
        return to_states * by, to_rows * by, None, None, None
