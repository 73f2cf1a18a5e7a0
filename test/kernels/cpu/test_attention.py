"""Compiled attention against the reference, and against itself in other company."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernel_cases import TOLERANCE, Batch, Heads, exact, extend_case, forest

from sglang_multiverse.kernels.cpu.attention import attend, decode_attention, extend_attention
from sglang_multiverse.kernels.cpu.rows import Rows
from sglang_multiverse.kernels.grouping import Link
from sglang_multiverse.kernels.inputs import KernelInputError
from sglang_multiverse.kernels.reference import (
    extend_attention_reference,
    shared_prefix_decode_reference,
)

HEADS = [Heads(), Heads(kv=3, group=3), Heads(kv=1, group=16, d=80, dv=48), Heads(2, 1, 128, 128)]
DTYPES = [torch.float32, torch.bfloat16]
heads_and_dtype = st.tuples(st.sampled_from(HEADS), st.sampled_from(DTYPES))


def check(got: torch.Tensor, want: torch.Tensor) -> None:
    assert got.isfinite().all()
    error = (got.double() - want).abs().max().item() if got.numel() else 0.0
    assert error <= TOLERANCE[got.dtype], f"off by {error:.2e}"


@settings(max_examples=25, deadline=None)
@given(
    heads_and_dtype,
    st.lists(st.tuples(st.integers(0, 150), st.integers(1, 90)), min_size=1, max_size=3),
    st.integers(0, 3),
    st.sampled_from([0.0, 5.0]),
    st.booleans(),
    st.integers(0, 999),
)
def test_extend(
    kind: tuple[Heads, torch.dtype],
    sequences: list[tuple[int, int]],
    depth: int,
    cap: float,
    wild: bool,
    seed: int,
) -> None:
    heads, dtype = kind
    args = extend_case(sequences, depth, heads=heads, dtype=dtype, wild=wild, seed=seed)
    want = exact(extend_attention_reference, args, logit_cap=cap)
    check(extend_attention(*args, logit_cap=cap), want)


@settings(max_examples=25, deadline=None)
@given(heads_and_dtype, st.integers(1, 12), st.sampled_from([0.0, 5.0]), st.integers(0, 999))
def test_decode(kind: tuple[Heads, torch.dtype], rows: int, cap: float, seed: int) -> None:
    heads, dtype = kind
    batch = forest(random.Random(seed), rows, 2, 100, 60)
    assume(sum(batch.lengths) <= 1000)  # the pool has 1024 slots
    args = batch.arguments(heads, dtype, seed)
    want = exact(shared_prefix_decode_reference, args, logit_cap=cap)
    got = decode_attention(*args, logit_cap=cap)
    check(got, want)
    assert torch.equal(got, decode_attention(*args, batch.chains, logit_cap=cap))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_threads_change_nothing(dtype: torch.dtype, threads: int) -> None:
    args = extend_case([(70, 130), (0, 65), (200, 1)], 2, heads=Heads(kv=3, group=3), dtype=dtype)
    check(extend_attention(*args), exact(extend_attention_reference, args))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_bits_alone_in_a_batch_and_decoded(dtype: torch.dtype) -> None:
    sequences = [(70, 130), (0, 65), (200, 1), (3, 7)]
    args = extend_case(sequences, 2, heads=Heads(kv=3, group=3), dtype=dtype)
    q, k, v, qo, kv, slots, hidden, _ = args
    together = extend_attention(*args)
    for b, (cached, new) in enumerate(sequences):
        mine = slots[int(kv[b]) : int(kv[b + 1])]
        for i in range(new):  # each token alone, as if it were decoded
            token = int(qo[b]) + i
            rows = Rows.of_indices(
                1,
                torch.tensor([0, 1]),
                torch.tensor([0, cached + i + 1]),
                mine[: cached + i + 1],
                hidden[token : token + 1],
            )
            assert torch.equal(attend(q[token : token + 1], k, v, rows)[0], together[token])


def test_what_is_shared_is_read_once(threads: int) -> None:
    """Of a group's shared tiles only the first row's slots are looked at."""
    trunk, block = Link("trunk", 100), Link("block", 210)
    batch = Batch([[trunk], [trunk, block], [trunk, block], []], [70, 5, 90, 30])
    q, k, v, indptr, slots = batch.arguments(Heads(kv=3, group=3))
    want = decode_attention(q, k, v, indptr, slots)
    for first, last in ((0, 64), (64, 192)):  # rows 1 and 2, but for the first of each group
        slots[int(indptr[2]) + first : int(indptr[2]) + last] = slots[-1]
    slots[int(indptr[1]) : int(indptr[1]) + 64] = slots[-1]
    assert torch.equal(decode_attention(q, k, v, indptr, slots, batch.chains), want)
    assert not torch.equal(decode_attention(q, k, v, indptr, slots), want)


def test_rows_behind_those_with_chains_share_nothing() -> None:
    batch = Batch([[Link(0, 128)], [Link(0, 128)], []], [3, 4, 200])
    args = batch.arguments()
    assert torch.equal(decode_attention(*args), decode_attention(*args, batch.chains[:2]))


def test_what_is_hidden_does_not_matter() -> None:
    """Slots that nobody sees may hold anything that is a number."""
    args = extend_case([(64, 200)], 1, seed=3)
    q, k, v, qo, kv, slots, hidden, most = args
    hidden = torch.tensor([[[70, 210]]], dtype=torch.int32).repeat(200, 1, 1)
    hidden[:146] = 0  # tokens of rows before 210 see all before them
    before = extend_attention(q, k, v, qo, kv, slots, hidden, most)
    k, v = k.clone(), v.clone()
    k[slots[70:210]], v[slots[70:210]] = 1e4, -1e4
    after = extend_attention(q, k, v, qo, kv, slots, hidden, most)
    assert torch.equal(before[146:], after[146:])
    assert not torch.equal(before[:146], after[:146])


def test_a_query_that_sees_nothing_gets_zeros() -> None:
    args = extend_case([(10, 30)], 1)
    hidden = torch.tensor([[[0, 99]]], dtype=torch.int32).repeat(30, 1, 1)
    assert not extend_attention(*args[:6], hidden, 30).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.zeros(3, 1, 2, dtype=torch.int32)}, r"hidden: .* allowed is int32 \[5"),
        ({"hidden": torch.zeros(5, 1, 2)}, "hidden: torch.float32"),
        ({"kv": torch.zeros(9, dtype=torch.int32)}, "kv_indptr: has 9 entries; allowed are 2"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str) -> None:
    q, k, v, qo, kv, slots, hidden, most = extend_case([(3, 5)], 1)
    kv, hidden = change.get("kv", kv), change.get("hidden", hidden)
    with pytest.raises(KernelInputError, match=message):
        extend_attention(q, k, v, qo, kv, slots, hidden, most)


def test_a_head_dim_that_is_no_multiple_of_16() -> None:
    args = extend_case([(3, 5)], 0, heads=Heads(d=40, dv=40))
    with pytest.raises(
        KernelInputError, match="k_buffer: head dim 40; allowed are multiples of 16"
    ):
        extend_attention(*args)


def test_queries_in_fp32_over_keys_in_bf16() -> None:
    args = extend_case([(30, 40)], 1, dtype=torch.bfloat16)
    args = (args[0].float(), *args[1:])
    check(extend_attention(*args), exact(extend_attention_reference, args))


def test_half_precision_is_not_there() -> None:
    args = extend_case([(3, 5)], 0, dtype=torch.float16)
    with pytest.raises(KernelInputError, match=r"k_buffer: is torch.float16; allowed are"):
        extend_attention(*args)
