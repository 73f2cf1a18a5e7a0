"""Hidden intervals for SGLang's Triton extend: the scores that a query must not see become −inf."""

# ruff: noqa: ARG001, N803  (SGLang passes all of these, by these names)

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit
def _hide(qk, kv_pos, q_idx, mask, intervals, stride, LEVELS: tl.constexpr):
    for level in tl.static_range(LEVELS):
        lo = tl.load(intervals + q_idx * stride + 2 * level, mask=mask, other=0)
        hi = tl.load(intervals + q_idx * stride + 2 * level + 1, mask=mask, other=0)
        qk = tl.where((kv_pos >= lo) & (kv_pos < hi), float("-inf"), qk)
    return qk


@triton.jit
def _one(qk, q_pos, kv_pos, q_idx, head, mask, Aux0, aux0_stride_t, aux0_stride_h, aux0_len):
    return _hide(qk, kv_pos, q_idx, mask, Aux0, aux0_stride_t, 1)


@triton.jit
def _two(qk, q_pos, kv_pos, q_idx, head, mask, Aux0, aux0_stride_t, aux0_stride_h, aux0_len):
    return _hide(qk, kv_pos, q_idx, mask, Aux0, aux0_stride_t, 2)


def score_mod_of(depth: int) -> Any:
    """For 1 or 2 levels of intervals, int32 [queries, heads, 2 · depth]."""
    return {1: _one, 2: _two}[depth]
