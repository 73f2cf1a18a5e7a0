"""What the attention of a step must know, for backends that can be told (`SeesBranches`).

Of an extend: which tokens may not see which, where whole blocks are computed in
line. Of a decode step: which rows have the same KV in front, so that it can be read
once for all of them. Both follow from where sequences stand in their family and in
the radix tree; no device tensor is read.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..kernels.grouping import Link
from ..kernels.visible import SeesBranches, Visible
from .known import layout_of
from .req import MultiverseReq
from .rows import copied, rows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sglang.srt.managers.schedule_batch import Req, ScheduleBatch


def hides(model_runner: Any) -> bool:
    """Whether the attention of `model_runner` can be told of hidden tokens."""
    return isinstance(model_runner.attn_backend, SeesBranches)


def tell_backend(result: Any, *args: Any, **_kwargs: Any) -> None:
    """Hook after `ForwardBatch.init_new(batch, model_runner, …)`, whose result is `result`."""
    batch, model_runner = args[-2:]
    backend = model_runner.attn_backend
    if not isinstance(backend, SeesBranches):
        return
    if result.forward_mode.is_decode():
        rows = rows_of(batch)
        if rows.chains is None:
            rows.chains = shared_prefixes(batch.reqs, batch.tree_cache)
        backend.expect(Visible(chains=rows.chains))
    elif result.forward_mode.is_extend():
        backend.expect(Visible(hidden=hidden_tokens(batch, result.positions.device)))
    else:
        backend.expect(Visible())


def hidden_tokens(batch: ScheduleBatch, device: Any) -> torch.Tensor | None:
    """int32 `[tokens, depth, 2]`: the row indices that each token of an extend may not see."""
    rows = rows_of(batch)
    if not rows.laid_out:
        return None
    found: list[np.ndarray | None] = []
    for req, start, length in zip(batch.reqs, batch.prefix_lens, batch.extend_lens, strict=True):
        known = layout_of(req, start + length)
        found.append(None if known is None else known.hidden[start : start + length])
    depth = max((part.shape[1] for part in found if part is not None and part.any()), default=0)
    if not depth:
        return None
    hidden = np.zeros((sum(batch.extend_lens), depth, 2), dtype=np.int32)
    at = 0
    for part, length in zip(found, batch.extend_lens, strict=True):
        if part is not None:
            hidden[at : at + length, : part.shape[1]] = part[:, :depth]
        at += length
    return copied(torch.from_numpy(hidden), device)


def shared_prefixes(reqs: Sequence[Req], tree_cache: Any) -> Sequence[Sequence[Link]]:
    """Of each row, the prefixes it may share, outermost first; empty if no two rows share one.

    A trunk's row begins with nodes of the radix tree, a branch's with its trunk's
    and then with the rows of the parked sequences it branched off.
    """
    trunks = [req.family.trunk if isinstance(req, MultiverseReq) else req for req in reqs]
    nodes = {trunk.last_node for trunk in trunks if trunk.kv.cache_protected_len > 0}
    nodes.discard(None)
    paths = dict(zip(nodes, tree_cache.tree_core.collect_path_info(list(nodes)), strict=True))
    chains = []
    for req, trunk in zip(reqs, trunks, strict=True):
        in_tree = trunk.kv.cache_protected_len
        chain = [
            Link(node.node_id, node.path_end)
            for node in (paths.get(trunk.last_node, ()) if in_tree else ())
            if node.path_end <= in_tree
        ]
        if isinstance(req, MultiverseReq):
            for parent, child in pairwise((*req.ancestors(), req)):
                borrowed = child.kv.cache_protected_len
                if borrowed > (chain[-1].stop if chain else 0):
                    chain.append(Link((parent.rid, parent.fork_at), borrowed))
        chains.append(chain)
    times = Counter(link for chain in chains for link in chain)
    return chains if any(count > 1 for count in times.values()) else ()
