"""Known text: ids that wait for their KV, and which of it the radix tree already holds.

Text is known before its KV exists in a prompt with blocks, in a retracted
request, and in the answer of an earlier chat turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sglang.srt.mem_cache.common import match_kv_cache

from ..structure import Automaton, Role, layout
from .replay import fork_points
from .stage import Stage

if TYPE_CHECKING:
    from ..structure import Layout
    from .replay import ForkPoint
    from .req import MultiverseReq


def plan(req: MultiverseReq) -> None:
    """Find the blocks in the ids known so far, and which of them are to fork."""
    family, tags = req.family, req.family.vocabulary.tags
    start = len(req.origin_input_ids) if req.is_branch else 0
    ids = req.ids()[: req.known_end]
    req.blocks, req.layout = [], None
    if family.may_fork and tags.id_of[Role.GOAL_CLOSE] in ids[start:]:
        blocks = fork_points(ids, tags, depth=req.depth, start=start)
        # Live branches stand for the block that is under way.
        req.blocks = [block for block in blocks if block.complete or not req.children]
        if family.hides and any(_is_past(block, len(ids)) for block in req.blocks):
            req.layout = layout(ids, tags)
    req.fork_points = _forking(req)


def _is_past(block: ForkPoint, length: int) -> bool:
    """Whether nothing is due of it that the engine writes: a header, or the conclusion's."""
    return block.complete and block.end < length


def _forking(req: MultiverseReq) -> list[ForkPoint]:
    """With a layout, blocks that are past are computed in line, where they stand."""
    if req.layout is None:
        return list(req.blocks)
    return [block for block in req.blocks if not _is_past(block, len(req.layout))]


def requeue(req: MultiverseReq) -> None:
    """`req` lost its row: plan how its known text gets its KV again."""
    if req.replaying:
        req.unpark()
    req.become(Stage.EXTEND if req.is_branch else Stage.QUEUED)
    req.position_offset = req.parent.position_offset if req.parent else 0
    plan(req)


def offset_at(known: Layout, length: int) -> int:
    """Position id minus row index of the token behind the first `length` ones.

    At the end it is one more than the last token's: there a branch may have closed,
    whose end counts and not where the next would begin.
    """
    if length < len(known):
        return int(known.positions[length]) - length
    return int(known.positions[-1]) + 1 - length


def layout_of(req: Any, end: int) -> Layout | None:
    """The layout that holds for an extend of `req` to `end`, if blocks in it are in line."""
    known: Layout | None = getattr(req, "layout", None)
    return known if known is not None and end <= len(known) else None


def match_prefix(trunk: MultiverseReq, tree_cache: Any) -> None:
    """Adopt what the radix tree holds of the trunk's linear ids.

    A match that ends among the branches of a block that forks is cut back to
    before `</Goal>`: the branches are computed anew, side by side.
    """
    ids = trunk.ids()[: trunk.known_end]
    limit = trunk._compute_max_prefix_len(len(ids))
    result = match_kv_cache(trunk, tree_cache, ids, max_prefix_len=limit)
    matched = trunk.prefix_len
    forking = _forking(trunk)
    for point in forking:
        if point.goal_end <= matched and (matched < point.end or not point.complete):
            result = match_kv_cache(trunk, tree_cache, ids, max_prefix_len=point.goal_end - 1)
            break
    if trunk.children and trunk.prefix_len >= trunk.known_end:
        result = match_kv_cache(trunk, tree_cache, ids, max_prefix_len=trunk.known_end - 1)
    if result.cache_protected_len is None:
        trunk.kv.cache_protected_len = trunk.prefix_len
    trunk.fork_points = [p for p in forking if p.goal_end > trunk.prefix_len]
    trunk.position_offset = 0
    if trunk.layout is not None:
        trunk.position_offset = offset_at(trunk.layout, trunk.prefix_len)
    elif len(trunk.fork_points) < len(forking):
        reading = Automaton(trunk.family.vocabulary.tags)
        reading.feed(ids[: trunk.prefix_len])
        trunk.position_offset = reading.position - trunk.prefix_len
    trunk.refresh_fill_ids()
