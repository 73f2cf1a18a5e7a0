"""Packed rows mean what their examples mean, one at a time."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import oracle
from models import problems
from sglang_multiverse.structure import Layout, TagTable, layout, parse
from sglang_multiverse.training.attention import (
    SEGMENTS,
    block_mask,
    dense_mask,
    mask_mod,
    segment_attention,
    spans,
)
from sglang_multiverse.training.encode import IGNORE, Example, encode
from sglang_multiverse.training.learner import Learner
from sglang_multiverse.training.packing import PackedCollator, pack


@pytest.fixture(scope="module")
def examples(tiny_tokenizer: Any, tiny_tags: TagTable) -> list[Example]:
    made = [problems.generate(3, "held-out", kind) for kind in problems.KINDS]
    return [
        encode(
            [
                {"role": "user", "content": problem.prompt},
                {"role": "assistant", "content": problem.solution},
            ],
            tiny_tokenizer,
            tiny_tags,
        )
        for problem in made
    ]


@pytest.fixture(scope="module")
def collate(tiny_tokenizer: Any, tiny_tags: TagTable) -> PackedCollator:
    return PackedCollator(tiny_tags, tiny_tokenizer.pad_token_id)


def in_two_rows(examples: list[Example]) -> list[list[Example]]:
    """Unequal ones, so that one is padded."""
    return [examples[:1], examples[1:]]


@pytest.fixture(params=["sdpa", SEGMENTS])
def packed_model(tiny_model: Any, request: pytest.FixtureRequest) -> Any:
    model = copy.deepcopy(tiny_model)
    model.set_attn_implementation(request.param)
    return model


@torch.no_grad()
def test_packed_logits_and_loss_are_the_oracle_s_on_each_example_alone(
    tiny_model: Any,
    packed_model: Any,
    tiny_tags: TagTable,
    examples: list[Example],
    collate: PackedCollator,
) -> None:
    rows = in_two_rows(examples)
    batch = collate(rows)
    logits = packed_model(**batch.inputs(flex=False)).logits
    expected_loss = 0.0
    for b, row in enumerate(rows):
        lo = 0
        for example in row:
            ids, hi = example.ids, lo + len(example)
            placed = layout(ids, tiny_tags)
            alone = tiny_model(
                input_ids=torch.tensor([ids]),
                position_ids=torch.from_numpy(placed.positions)[None],
                attention_mask=oracle._additive(
                    torch.from_numpy(placed.dense_mask()), torch.float32
                ),
            ).logits[0]
            torch.testing.assert_close(logits[b, lo:hi], alone, atol=1e-4, rtol=1e-4)
            scores = oracle.score(tiny_model, ids, tiny_tags, 1, None, ())
            learned = torch.tensor(example.labels[1:]) != IGNORE
            expected_loss -= float(scores.logprobs[learned].sum())
            lo = hi
    loss = Learner(packed_model)(batch)
    # A sum over hundreds of tokens; per token it is 1e-4.
    assert batch.learned == sum(label != IGNORE for e in examples for label in e.labels)
    assert float(loss) / batch.learned == pytest.approx(expected_loss / batch.learned, abs=1e-4)


def test_a_branch_and_an_example_learn_nothing_from_their_neighbours(
    packed_model: Any, tiny_tags: TagTable, examples: list[Example], collate: PackedCollator
) -> None:
    first, second = examples[0], next(e for e in examples if parse(e.ids, tiny_tags).blocks)
    batch = collate([[first, second]])
    block = parse(second.ids, tiny_tags).blocks[0]
    start = len(first)
    one, two = (
        slice(start + branch.span.lo, start + branch.span.hi) for branch in block.branches[:2]
    )
    inputs = batch.inputs(flex=False)
    embedded = packed_model.get_input_embeddings()(inputs.pop("input_ids")).detach()
    embedded.requires_grad_()
    logits = packed_model(inputs_embeds=embedded, **inputs).logits[0]

    def gradient(part: slice) -> torch.Tensor:
        """Of the loss on the labels in `part`, per token: float32 `[n]`."""
        labels = batch.labels[0, part]
        loss = functional.cross_entropy(
            logits[part.start - 1 : part.stop - 1], labels, ignore_index=IGNORE
        )
        (slope,) = torch.autograd.grad(loss, embedded, retain_graph=True)
        return slope[0].norm(dim=-1)

    of_two = gradient(two)
    assert (of_two[one] == 0).all()
    assert (of_two[:start] == 0).all()
    assert (of_two[start : one.start] > 0).all()
    assert (gradient(slice(start + 1, start + len(second)))[:start] == 0).all()
    after = gradient(slice(start + block.branches[-1].span.hi, start + len(second)))
    assert (after[one] > 0).all()


def test_attention_by_segments_has_the_gradients_of_attention_over_the_row(
    examples: list[Example], collate: PackedCollator
) -> None:
    """Also where several heads share a key, and in rows of different segments and padding."""
    batch = collate(in_two_rows(examples))
    mask, found = dense_mask(batch.segments, batch.hidden), []
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, heads, mask.shape[-1], 8).requires_grad_() for heads in (4, 2, 2))
    layer = SimpleNamespace(num_key_value_groups=2)
    weights = torch.randn(2, mask.shape[-1], 4, 8)
    for attend in (sdpa_attention_forward, segment_attention):
        out, _ = attend(layer, q, k, v, mask, segment_spans=spans(batch.segments), scaling=0.3)
        found.append([out, *torch.autograd.grad((out * weights).sum(), (q, k, v))])
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


def test_no_label_is_predicted_from_a_token_that_its_own_does_not_see(
    tiny_tags: TagTable, examples: list[Example], collate: PackedCollator
) -> None:
    """Even where the data labels one: text whose header is not the engine's."""
    labelled = [Example(example.ids, list(example.ids)) for example in examples]
    batch = collate([labelled])
    seen = dense_mask(batch.segments, batch.hidden)[0, 0]
    for i in (batch.labels[0] != IGNORE).nonzero()[:, 0].tolist():
        assert i > 0 and seen[i, i - 1]


def test_the_mask_is_block_diagonal_of_the_layouts_masks(
    tiny_tags: TagTable, examples: list[Example], collate: PackedCollator
) -> None:
    batch = collate(in_two_rows(examples))
    visible = dense_mask(batch.segments, batch.hidden)
    expected = torch.zeros_like(visible[1, 0])
    lo = 0
    for example in examples[1:]:
        hi = lo + len(example)
        placed: Layout = layout(example.ids, tiny_tags)
        expected[lo:hi, lo:hi] = torch.from_numpy(placed.dense_mask())
        lo = hi
    assert visible[1, 0, :lo, :lo].equal(expected[:lo, :lo])
    padding = batch.segments[0] == -1
    assert padding.any()
    assert not visible[0, 0][~padding][:, padding].any()
    assert visible[0, 0].any(-1).all(), "a row that sees nothing has no softmax"


def test_the_flex_rule_equals_the_dense_mask(
    examples: list[Example], collate: PackedCollator
) -> None:
    from torch.nn.attention.flex_attention import create_mask

    batch = collate(in_two_rows(examples))
    b, n = batch.segments.shape
    dense = create_mask(mask_mod(batch.segments, batch.hidden), b, 1, n, n, device="cpu")
    assert dense.equal(dense_mask(batch.segments, batch.hidden))


def test_the_block_mask_holds_every_tile_that_anyone_sees(
    examples: list[Example], collate: PackedCollator
) -> None:
    batch = collate([examples])
    n = batch.segments.shape[1]
    made = block_mask(batch.segments, batch.hidden)
    assert made.shape == (1, 1, n, n)
    tiles = made.to_dense()[0, 0].bool()
    size, side = made.BLOCK_SIZE[0], tiles.shape[0]
    padded = torch.zeros(side * size, side * size, dtype=torch.bool)
    padded[:n, :n] = dense_mask(batch.segments, batch.hidden)[0, 0]
    assert tiles.equal(padded.view(side, size, side, size).any(3).any(1))


def test_rows_are_full_and_hold_every_example_once() -> None:
    draw = np.random.default_rng(0)
    lengths = [*draw.integers(20, 400, 500).tolist(), 2000]
    order = draw.permutation(501).tolist()
    rows = pack(lengths, order, 1024)
    assert sorted(i for row in rows for i in row) == list(range(500))
    assert all(sum(lengths[i] for i in row) <= 1024 for row in rows)
    assert sum(lengths[:500]) / (1024 * len(rows)) > 0.9
    assert pack(lengths, order, 1024) == rows
