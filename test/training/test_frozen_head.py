"""The vocabulary with a few learning rows against peft's own way through it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from sglang_multiverse.training import learner as learner_module
from sglang_multiverse.training.adapter import adapt
from sglang_multiverse.training.config import TrainConfig
from sglang_multiverse.training.encode import IGNORE
from sglang_multiverse.training.frozen_head import CHUNK, frozen_vocabulary
from sglang_multiverse.training.learner import Learner
from sglang_multiverse.training.packing import Packed

VOCABULARY = 60


def adapted(*, tied: bool, rows: list[int]) -> torch.nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
    )
    settings = TrainConfig(lora_rank=4, lora_targets=("q_proj", "down_proj"))
    model: torch.nn.Module = adapt(LlamaForCausalLM(config), settings, rows)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def batch() -> Packed:
    n = 2 * CHUNK + 30
    ids = torch.randint(0, VOCABULARY, (2, n))
    labels = torch.where(torch.rand(2, n) < 0.7, ids, torch.tensor(IGNORE))
    return Packed(
        input_ids=ids,
        labels=labels,
        position_ids=torch.arange(n).expand(2, n).contiguous(),
        segments=torch.zeros(2, n, dtype=torch.int64),
        hidden=torch.zeros(2, n, 0, 2, dtype=torch.int64),
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [[57, 58, 59], [3, 40, 41], []])
def test_loss_and_gradients_are_those_of_the_model_s_own_ends(tied: bool, rows: list[int]) -> None:
    model, data = adapted(tied=tied, rows=rows), batch()
    found = []
    for vocabulary in (None, frozen_vocabulary(model, torch.float32)):
        model.zero_grad()
        loss = Learner(model, vocabulary=vocabulary)(data)
        (0.5 * loss).backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        found.append((loss.detach(), gradients))
    (loss, expected), (own, gradients) = found
    torch.testing.assert_close(own, loss, rtol=1e-5, atol=1e-5)
    assert bool(rows) == any("tokens_delta" in name for name in expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-4, msg=name)


def test_in_bf16_the_gradients_keep_their_direction() -> None:
    """As the recipes train: products in bf16, everything else in float32."""
    model, data = adapted(tied=True, rows=[57, 58, 59]), batch()
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        model.zero_grad()
        learner = Learner(model, vocabulary=frozen_vocabulary(model, dtype))
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = learner(data)
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        found.append((loss.detach(), gradients))
    (loss, expected), (own, gradients) = found
    torch.testing.assert_close(own, loss, rtol=1e-2, atol=0)
    for name, gradient in expected.items():
        assert gradients[name].dtype == torch.float32
        likeness = torch.cosine_similarity(gradients[name].flatten(), gradient.flatten(), dim=0)
        assert likeness > 0.99, name


def test_logits_in_chunks_are_those_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = adapted(tied=False, rows=[3, 40]), batch()
    found = []
    for size in (10_000, 50):
        monkeypatch.setattr(learner_module, "CHUNK", size)
        model.zero_grad()
        loss = Learner(model)(data)
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.requires_grad)])
    for whole, chunked in zip(*found, strict=True):
        torch.testing.assert_close(chunked, whole, rtol=1e-4, atol=1e-5)
    nothing = dataclasses.replace(data, labels=torch.full_like(data.labels, IGNORE))
    loss = Learner(model)(nothing)
    loss.backward()
    assert loss == 0


def test_rows_that_moved_are_seen() -> None:
    model, data = adapted(tied=True, rows=[57, 58, 59]), batch()
    vocabulary = frozen_vocabulary(model, torch.float32)
    own, plain = Learner(model, vocabulary=vocabulary), Learner(model)
    before = own(data).detach()
    (rows,) = (p for name, p in model.named_parameters() if "tokens_delta" in name)
    with torch.no_grad():
        rows.add_(1.0)
    after = own(data).detach()
    assert abs(after - before) > 1.0
    torch.testing.assert_close(after, plain(data).detach(), rtol=1e-5, atol=1e-5)


def test_it_adds_no_parameters() -> None:
    model = adapted(tied=True, rows=[57, 58, 59])
    names = [n for n, _ in Learner(model).named_parameters()]
    vocabulary = frozen_vocabulary(model, torch.float32)
    assert [n for n, _ in Learner(model, vocabulary=vocabulary).named_parameters()] == names
