"""What the kernels refuse, and that the message begins with the argument's name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from triton import knobs

from sglang_multiverse.kernels.extend import extend_attention
from sglang_multiverse.kernels.grouping import Capacity
from sglang_multiverse.kernels.inputs import KernelInputError
from sglang_multiverse.kernels.prefix_tables import PrefixTables
from sglang_multiverse.kernels.shared_prefix import Workspace, shared_prefix_decode


def empty(*shape: int, dtype: torch.dtype = torch.int32, device: str = "meta") -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device=device)


def half(*shape: int) -> torch.Tensor:
    return empty(*shape, dtype=torch.float16)


Q, KV = half(3, 4, 64), half(9, 2, 64)
EXTEND: dict[str, Any] = {
    "q": Q,
    "k_buffer": KV,
    "v_buffer": KV,
    "qo_indptr": empty(2),
    "kv_indptr": empty(2),
    "kv_indices": empty(9),
    "hidden": empty(3, 1, 2),
    "max_len_extend": 3,
}
DECODE: dict[str, Any] = {
    "q": Q,
    "k_buffer": KV,
    "v_buffer": KV,
    "kv_indptr": empty(4),
    "kv_indices": empty(9),
}


def tables(rows: int, rows_per_piece: int) -> PrefixTables:
    return PrefixTables.allocate(Capacity(rows, 4, 4, 4, rows_per_piece), "meta")


BOTH = [
    ("q", half(3, 4 * 64), "dimensions"),
    ("q", empty(3, 4, 64, dtype=torch.float64), "float64"),
    ("q", half(3, 4, 8), "head dim 8"),
    ("q", half(3, 5, 64), "5 heads"),
    ("q", half(3, 4, 128)[:, :, ::2], "contiguous"),
    ("k_buffer", half(9, 2, 80), "head dim 80"),
    ("k_buffer", empty(9, 2, 64, dtype=torch.bfloat16), "bfloat16"),
    ("k_buffer", empty(9, 2, 64, dtype=torch.float16, device="cpu"), "on cpu"),
    ("v_buffer", half(8, 2, 64), "slots"),
    ("v_buffer", half(9, 2, 512), "head dim 512"),
    ("kv_indptr", empty(9), "9 entries"),
    ("kv_indices", empty(9, dtype=torch.int16), "int16"),
    ("kv_indices", empty(18)[::2], "contiguous"),
    ("logit_cap", -1.0, "-1.0"),
    ("logit_cap", float("nan"), "nan"),
    ("out", half(3, 4, 32), "allowed is"),
]
ONLY_EXTEND = [
    ("qo_indptr", empty(2, 2), "one dimension"),
    ("hidden", empty(3, 1, 2, dtype=torch.int64), "int64"),
    ("hidden", empty(2, 1, 2), "allowed is int32 [3, depth, 2]"),
    ("hidden", empty(3, 2), "allowed is int32"),
    ("hidden", empty(3, 2, 2)[:, ::2], "contiguous"),
]
ONLY_DECODE = [
    ("prefixes", tables(2, 1), "for 2 rows"),
    ("prefixes", tables(3, 99), "99 rows a piece; allowed are 64"),
    ("workspace", Workspace.allocate(Q[:2], KV, KV, None), "allowed is (3, 4, 4, 64)"),
]


def refuses(call: Any, arguments: dict[str, Any], name: str, value: Any, says: str) -> None:
    with pytest.raises(KernelInputError) as raised:
        call(**{**arguments, name: value})
    assert str(raised.value).startswith(f"{name}: ")
    assert says in str(raised.value)


@pytest.mark.parametrize(("name", "value", "says"), BOTH + ONLY_EXTEND)
def test_extend(name: str, value: Any, says: str) -> None:
    refuses(extend_attention, EXTEND, name, value, says)


@pytest.mark.parametrize(("name", "value", "says"), BOTH + ONLY_DECODE)
def test_shared_prefix(name: str, value: Any, says: str) -> None:
    refuses(shared_prefix_decode, DECODE, name, value, says)


@pytest.mark.skipif(knobs.runtime.interpret, reason="TRITON_INTERPRET is set")
def test_a_cpu_without_the_interpreter() -> None:
    cpu = {
        name: torch.zeros_like(value, device="cpu") if isinstance(value, torch.Tensor) else value
        for name, value in EXTEND.items()
    }
    with pytest.raises(KernelInputError, match=r"^q: is on the CPU; .*TRITON_INTERPRET=1"):
        extend_attention(**cpu)
