"""Who sees whom in a packed row, for both ways of computing attention.

`dense_mask` serves `segment_attention` (CPU; memory O(n²)). `block_mask` serves
`flex_attention`, which skips hidden tiles and stores no dense mask; both take
the compact form (segments and hidden intervals). The rule of `block_mask` is
tested on a CPU against the dense mask; training with it on a GPU was not run.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

MaskMod = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def dense_mask(segments: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Visibility of each column from each row.

    Args:
        segments: int64 `[b, n]`; a token sees its own segment only.
        hidden: int64 `[b, n, d, 2]`, column intervals hidden from a token.

    Returns:
        bool `[b, 1, n, n]`. Every token sees at least itself.
    """
    n = segments.shape[1]
    columns = torch.arange(n, device=segments.device)
    visible = (columns <= columns[:, None]) & (segments[:, None, :] == segments[:, :, None])
    for lo, hi in _levels(hidden):
        visible &= ~((lo[:, :, None] <= columns) & (columns < hi[:, :, None]))
    return visible[:, None]


def spans(segments: torch.Tensor) -> list[list[tuple[int, int]]]:
    """Where each segment of each row of int64 `[b, n]` begins and ends; the padding is one."""
    runs = (torch.unique_consecutive(row, return_counts=True)[1].tolist() for row in segments)
    return [list(pairwise((0, *accumulate(lengths)))) for lengths in runs]


def segment_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    segment_spans: list[list[tuple[int, int]]],
    **settings: Any,
) -> tuple[torch.Tensor, None]:
    """`sdpa` of each segment by itself, with the signature of a `transformers` attention.

    Over a whole row it would also compute what segments do not see of each
    other: most of the work where a row holds several.

    Args:
        query: float `[b, heads, n, d]`; key and value may have fewer heads.
        attention_mask: bool `[b, 1, n, n]`; only its blocks at the spans are read.
        segment_spans: of each row.
        settings: those of `sdpa`.

    Returns:
        float `[b, n, heads, d]`, and no weights.
    """

    def attend(b: int, lo: int, hi: int) -> torch.Tensor:
        q, k, v = (one[b, None, :, lo:hi] for one in (query, key, value))
        mask = attention_mask[b, None, :, lo:hi, lo:hi]
        return sdpa_attention_forward(module, q, k, v, mask, **settings)[0]

    rows = [
        torch.cat([attend(b, lo, hi) for lo, hi in row], 1) for b, row in enumerate(segment_spans)
    ]
    return torch.cat(rows), None


SEGMENTS = "multiverse_segments"
"""`segment_attention`'s name as an attention implementation of `transformers`."""
AttentionInterface.register(SEGMENTS, segment_attention)


def mask_mod(segments: torch.Tensor, hidden: torch.Tensor) -> MaskMod:
    """The same rule as a function of one query and one key, as `flex_attention` takes it."""
    levels = _levels(hidden)

    def visible(
        b: torch.Tensor,
        h: torch.Tensor,  # noqa: ARG001
        q: torch.Tensor,
        k: torch.Tensor,
    ) -> torch.Tensor:
        seen = (k <= q) & (segments[b, q] == segments[b, k])
        for lo, hi in levels:
            seen = seen & ~((lo[b, q] <= k) & (k < hi[b, q]))
        return seen

    return visible


def block_mask(segments: torch.Tensor, hidden: torch.Tensor) -> Any:
    """A `BlockMask` of logical shape `[b, 1, n, n]` on the tensors' device.

    `transformers` hands it through to `flex_attention` as it is.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    b, n = segments.shape
    return create_block_mask(
        mask_mod(segments, hidden), B=b, H=None, Q_LEN=n, KV_LEN=n, device=segments.device
    )


def _levels(hidden: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """`[b, n, d, 2]` → per nesting level its two ends, each contiguous `[b, n]`."""
    return [
        (hidden[:, :, d, 0].contiguous(), hidden[:, :, d, 1].contiguous())
        for d in range(hidden.shape[2])
    ]
