"""Known text: ids that wait for their KV, and which of it the radix tree already holds.

Text is known before its KV exists in a prompt with blocks, in a retracted
request, and in the answer of an earlier chat turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sglang.srt.mem_cache.common import match_kv_cache

from ..structure import Automaton, Role
from .replay import fork_points
from .stage import Stage

if TYPE_CHECKING:
    from .req import MultiverseReq


def plan(req: MultiverseReq) -> None:
    """Find the blocks in the ids known so far."""
    tags = req.family.vocabulary.tags
    start = len(req.origin_input_ids) if req.is_branch else 0
    ids = req.ids()[: req.known_end]
    req.fork_points = []
    if tags.id_of[Role.GOAL_CLOSE] in ids[start:]:
        points = fork_points(ids, tags, depth=req.depth, start=start)
        # Live branches stand for the block that is under way.
        req.fork_points = [p for p in points if p.complete or not req.children]
    req.all_fork_points = list(req.fork_points)


def requeue(req: MultiverseReq) -> None:
    """`req` lost its row: plan how its known text gets its KV again."""
    if req.replaying:
        req.unpark()
    req.become(Stage.EXTEND if req.is_branch else Stage.QUEUED)
    req.position_offset = req.parent.position_offset if req.parent else 0
    plan(req)


def match_prefix(trunk: MultiverseReq, tree_cache: Any) -> None:
    """Adopt what the radix tree holds of the trunk's linear ids.

    A match that ends among the branches of a block is cut back to before
    `</Goal>`: the branches are computed anew, side by side.
    """
    ids = trunk.ids()[: trunk.known_end]
    limit = trunk._compute_max_prefix_len(len(ids))
    result = match_kv_cache(trunk, tree_cache, ids, max_prefix_len=limit)
    matched = trunk.prefix_len
    for point in trunk.all_fork_points:
        if point.goal_end <= matched and (matched < point.end or not point.complete):
            result = match_kv_cache(trunk, tree_cache, ids, max_prefix_len=point.goal_end - 1)
            break
    if trunk.children and trunk.prefix_len >= trunk.known_end:
        result = match_kv_cache(trunk, tree_cache, ids, max_prefix_len=trunk.known_end - 1)
    if result.cache_protected_len is None:
        trunk.kv.cache_protected_len = trunk.prefix_len
    trunk.fork_points = [p for p in trunk.all_fork_points if p.goal_end > trunk.prefix_len]
    trunk.position_offset = 0
    if len(trunk.fork_points) < len(trunk.all_fork_points):
        reading = Automaton(trunk.family.vocabulary.tags)
        reading.feed(ids[: trunk.prefix_len])
        trunk.position_offset = reading.position - trunk.prefix_len
    trunk.refresh_fill_ids()
