"""Softmax over keys that arrive tile by tile (Milakov and Gimelshein, arXiv 1805.02867).

The state of a query is `(acc, peak, total)`: with `s` the scores seen so far, in units of
log 2, `peak = max(s)`, `total = Σ 2^(s − peak)` and `acc = Σ 2^(s − peak) · v`. States of
disjoint sets of keys merge exactly. A query that has seen no key has `peak = −inf`.
"""

# ruff: noqa: N803  (compile-time arguments are upper-case in Triton kernels everywhere)

from __future__ import annotations

import triton
import triton.language as tl

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def scaled_scores(q, k, sm_scale, LOGIT_CAP: tl.constexpr):
    """Scores of `q` [m, d] against `k` [d, n] in units of log 2, capped as `cap · tanh(s / cap)`.

    fp32 inputs are multiplied in fp32, not TF32: the engine's parity rests on it.
    """
    scores = tl.dot(q, k, input_precision="ieee")
    if LOGIT_CAP == 0:
        return scores * (sm_scale * LOG2E)
    # tanh(x) = 2 · sigmoid(2x) − 1
    halves = tl.sigmoid(scores * (sm_scale * 2 / LOGIT_CAP))
    return (2 * halves - 1) * (LOGIT_CAP * LOG2E)


@triton.jit
def absorb(acc, peak, total, scores, v):
    """The state after one more tile of keys; a hidden key's score is −inf."""
    higher = tl.maximum(peak, tl.max(scores, 1))
    # Of a query that has seen nothing yet: −inf − −inf would be NaN.
    base = tl.where(higher == float("-inf"), 0.0, higher)
    weights = tl.exp2(scores - base[:, None])
    fade = tl.exp2(peak - base)
    total = total * fade + tl.sum(weights, 1)
    acc = tl.dot(weights.to(v.dtype), v, acc * fade[:, None], input_precision="ieee")
    return acc, higher, total


@triton.jit
def normalised(acc, total):
    """What attention returns; zero where no key was seen."""
    return acc / tl.where(total == 0.0, 1.0, total)[:, None]
