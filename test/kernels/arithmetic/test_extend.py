"""The extend kernel against its reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import DEVICE, Heads, check, exact, extend_case, intervals_of

from sglang_multiverse.kernels.extend import extend_attention
from sglang_multiverse.kernels.reference import extend_attention_reference
from sglang_multiverse.kernels.tiles import Tile
from sglang_multiverse.structure import MULTIVERSE, TagTable, layout

SMALL = Tile(16, 16, 4, 1)
SEQUENCES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), min_size=1, max_size=3)


def agrees(case: tuple[Any, ...], **kwargs: Any) -> None:
    got = extend_attention(*case, tile=SMALL, **kwargs)
    check(got, exact(extend_attention_reference, case, **kwargs))


@given(
    sequences=SEQUENCES,
    depth=st.integers(0, 3),
    group=st.integers(1, 4),
    kv=st.integers(1, 2),
    wild=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None, database=None, derandomize=True)
def test_shapes(
    sequences: list[tuple[int, int]], depth: int, group: int, kv: int, wild: bool, seed: int
) -> None:
    heads = Heads(kv=kv, group=group, d=16, dv=16)
    agrees(extend_case(sequences, depth, heads=heads, wild=wild, seed=seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("d", "dv"), [(64, 64), (80, 80), (96, 96), (128, 128), (192, 128), (256, 256)]
)
def test_head_dims_and_dtypes(d: int, dv: int, dtype: torch.dtype) -> None:
    case = extend_case([(13, 21), (0, 5)], 2, heads=Heads(1, 3, d, dv), dtype=dtype)
    got = extend_attention(*case)
    check(got, exact(extend_attention_reference, case))


@pytest.mark.parametrize("logit_cap", [0.0, 1.5, 30.0])
@pytest.mark.parametrize("sm_scale", [None, 0.3])
def test_scale_and_soft_cap(sm_scale: float | None, logit_cap: float) -> None:
    agrees(extend_case([(20, 20)], 2, seed=3), sm_scale=sm_scale, logit_cap=logit_cap)


def test_a_prompt_of_ten_blocks_is_one_extend() -> None:
    blocks = 10
    hidden = []
    for block in range(blocks):
        goal = block * 12 + 3
        hidden += [[[0, 0]]] * 3
        hidden += [[[goal, goal]]] * 3 + [[[goal, goal + 3]]] * 3 + [[[goal, goal + 6]]] * 3
    case = [*extend_case([(0, blocks * 12)], 1)]
    case[6] = intervals_of(hidden)
    got = extend_attention(*case, tile=SMALL)
    check(got, exact(extend_attention_reference, case))
    plain = [*case]
    plain[6] = case[6][:, :0].contiguous()
    assert not torch.allclose(got, extend_attention(*plain, tile=SMALL), atol=1e-2)


TEXT = """
    a b <Parallel> <Goal> <Outline> c </Outline> <Outline> d </Outline> </Goal>
    <Path> o p q r </Path>
    <Path> e <Parallel> <Goal> <Outline> f </Outline> <Outline> g </Outline> </Goal>
    <Path> h i j </Path> <Path> k l </Path> <Conclusion> m </Conclusion> </Parallel> n </Path>
    <Conclusion> s </Conclusion> </Parallel> t u
"""


@pytest.mark.parametrize("cached", [0, 17, 30])
def test_it_sees_what_the_structure_of_a_text_says(cached: int) -> None:
    """A prompt with nested blocks, from any token on, against the dense mask of `structure`."""
    tags = TagTable.from_ids(MULTIVERSE, {tag: 10 + i for i, tag in enumerate(MULTIVERSE.tags)})
    ids = [
        10 + MULTIVERSE.tags.index(word) if word in MULTIVERSE.tags else 0 for word in TEXT.split()
    ]
    laid_out = layout(ids, tags)
    assert laid_out.hidden.shape[1] == 2
    case = [*extend_case([(cached, len(ids) - cached)], 0, heads=Heads(2, 1))]
    case[6] = intervals_of(laid_out.hidden[cached:])
    got = extend_attention(*case, tile=SMALL)
    q, k, v = (
        tensor.double().transpose(0, 1) for tensor in (case[0], case[1][case[5]], case[2][case[5]])
    )
    mask = torch.from_numpy(laid_out.dense_mask()[cached:]).to(DEVICE)
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    check(got, want.transpose(0, 1))


def three_branches() -> list[Any]:
    """32 tokens, then branches of 32: what is hidden fills whole tiles of 16."""
    case = [*extend_case([(0, 128)], 1, heads=Heads(kv=1), seed=5)]
    starts = [0] * 32 + [32] * 32 + [64] * 32 + [96] * 32
    case[6] = intervals_of([[[min(32, start), start]] for start in starts])
    return case


def test_what_is_hidden_from_a_whole_tile_is_not_read() -> None:
    """A masked tile would turn NaN into NaN; one that is stepped over does not."""
    case = three_branches()
    want = exact(extend_attention_reference, case)
    slots = case[5]
    for name in (1, 2):
        poisoned = case[name].clone()
        poisoned[slots[32:96]] = float("nan")
        case[name] = poisoned
    got = extend_attention(*case, tile=SMALL)
    check(got[96:], want[96:])
    check(got[:32], want[:32])
    assert got[32:96].isnan().all()  # the branches themselves do read it


def test_what_comes_later_is_not_read() -> None:
    case = three_branches()
    want = exact(extend_attention_reference, case)
    case[1] = case[1].clone()
    case[1][case[5][80:]] = float("nan")
    check(extend_attention(*case, tile=SMALL)[:80], want[:80])


def test_a_query_that_sees_nothing_gets_zeros() -> None:
    case = [*extend_case([(4, 8)], 1)]
    case[6] = intervals_of([[[0, 12]]] * 8)
    assert (extend_attention(*case, tile=SMALL) == 0).all()


def test_nothing_to_do() -> None:
    case = extend_case([(5, 0), (0, 0)], 1)
    assert extend_attention(*case).shape == (0, 4, 64)


def test_writes_to_out_of_any_strides_and_reads_q_of_any() -> None:
    case = [*extend_case([(9, 14)], 2, seed=2)]
    want = exact(extend_attention_reference, case)
    packed = torch.zeros(14, 4 * 64 * 3, device=DEVICE)
    packed[:, :256] = case[0].reshape(14, 256)
    case[0] = packed[:, :256].view(14, 4, 64)  # as a slice of a fused projection is
    out = torch.full((14, 8, 64), 7.0, device=DEVICE)[:, ::2]
    assert extend_attention(*case, tile=SMALL, out=out) is out
    check(out, want)
