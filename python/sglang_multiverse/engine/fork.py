"""Map: a parked sequence, and one branch per outline over its KV (DESIGN.md §4)."""

from __future__ import annotations

import copy
import time
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sglang.srt.managers.schedule_batch import FINISH_LENGTH

from ..structure import Automaton, Phase, outline_label
from .known import plan
from .metrics import Wait
from .reading import room
from .req import MultiverseReq
from .stage import Stage

if TYPE_CHECKING:
    from .family import Family
    from .replay import ForkPoint


def replay(req: MultiverseReq, point: ForkPoint) -> None:
    """Known text forks here. Its branches are known wholly, or up to where it ends."""
    family = req.family
    ids = req.ids()
    known = [ids[span.lo : span.hi] for span in point.branches]
    if point.complete and point.end == req.seqlen and req.automaton.phase is not Phase.TAIL:
        # The text ends with a tag that ended a block early. The next token is
        # sampled from that tag, which therefore stays in the parent; its KV
        # then is not what §3 defines, so it is kept out of the tree.
        known[-1] = known[-1][:-1]
        family.trunk.skip_radix_cache_insert = True
    base = Automaton(family.vocabulary.tags)
    base.feed(ids[: point.goal_end])
    if not point.complete:
        req.automaton = base
        spawn(req, known)
        return
    if not any(known):
        # The block ends right behind its goal: nothing branches off.
        req.become(Stage.EXTEND)
        return
    req.park(point.goal_end, replaying=True)
    prefix, params = ids[: base.length], _sampling_params(family, base)
    req.children = [
        _child(req, index, prefix, own, base.copy(), "", params)
        for index, own in enumerate(known, start=1)
        if own
    ]
    for child in req.children:
        child.closed = True


def spawn(req: MultiverseReq, known: Sequence[array[int]] = ()) -> None:
    """Park `req`, whose ids up to `</Goal>` have KV, and start its branches.

    `known` holds the text that a prompt gives of the first branches; the
    others, and the last known one if its tag is missing, get their header.
    """
    family, base = req.family, req.automaton
    vocabulary, max_tokens = family.vocabulary, family.trunk.sampling_params.max_new_tokens
    ids = req.ids()
    prefix, params = ids[: base.length], _sampling_params(family, base)
    children: list[MultiverseReq] = []
    headers: list[tuple[int, ...]] = []
    for index, span in enumerate(base.frames[-1].outlines, start=1):
        label = outline_label(
            vocabulary.text(list(ids[span.lo : span.hi])), index, parent=req.label
        )
        own = known[index - 1] if index <= len(known) else array("q")
        child = _child(req, index, prefix, own, base.copy(), label, params)
        # Of the branch's own block: its text may have opened others since.
        frame = child.automaton.frames[child.depth - 1]
        child.closed = frame.closed > 0
        header: tuple[int, ...] = ()
        if frame.phase is Phase.HEAD and not child.closed:
            header = vocabulary.branch_header(label)
            if tuple(own) == header[: len(own)]:
                header = header[len(own) :]
        children.append(child)
        headers.append(header)

    needed = sum(map(len, headers))
    if family.scores is not None and family.scores.alone:
        _compute_only(req, base.length, [child for child in children if child.output_ids])
        return
    if family.generated + needed > max_tokens or room(family, base) < max(map(len, headers)):
        family.ending = FINISH_LENGTH(length=family.generated)
        return
    if not req.is_branch and not req.skip_radix_cache_insert:
        # [0, row_len) moves to the tree, locked by the trunk.
        req.refresh_known(req.row_len)
        family.memory.tree_cache.checkpoint(req, up_to=req.row_len)
    begun = req.tag_read_at if req.stage is Stage.DRAIN else time.perf_counter()
    for child, header in zip(children, headers, strict=True):
        force(child, header)
        child.wait = None if child.closed else Wait("fork_seconds", begun)
    req.park(base.length, replaying=False)
    req.children = children
    family.blocks += 1
    family.branches += len(children)
    family.depth = max(family.depth, children[0].depth)


def _compute_only(req: MultiverseReq, fork_at: int, known: list[MultiverseReq]) -> None:
    """There is no room for an answer, but what is known of the branches is to be scored."""
    if not known:
        req.family.ending = FINISH_LENGTH(length=req.family.generated)
        return
    req.park(fork_at, replaying=True)
    req.children = known
    for child in known:
        child.closed = True


def force(req: MultiverseReq, ids: Sequence[int]) -> None:
    """Append ids that the engine, not the model, writes."""
    family = req.family
    req.append_known(list(ids))
    req.automaton.feed(ids)
    req.segment_start = len(req.output_ids)
    family.generated += len(ids)
    family.forced += len(ids)
    for token in ids:
        family.note_delta(req, token)


def _child(
    parent: MultiverseReq,
    index: int,
    prefix: array[int],
    own: array[int],
    automaton: Automaton,
    label: str,
    sampling_params: Any,
) -> MultiverseReq:
    """A branch over `parent`'s ids as `automaton` has read them, with `own` ids known.

    `prefix` is shared by all siblings, and never written to.
    """
    family = parent.family
    trunk = family.trunk
    path = (*parent.path, index)
    child = MultiverseReq(
        rid=f"{trunk.rid}#{'.'.join(map(str, path))}",
        origin_input_text="",
        origin_input_ids=prefix,
        sampling_params=sampling_params,
        return_logprob=trunk.return_logprob,
        top_logprobs_num=trunk.logprob.top_logprobs_num,
        token_ids_logprob=trunk.logprob.token_ids_logprob,
        stream=False,
        lora_id=trunk.lora_id,
        custom_logit_processor=trunk.custom_logit_processor,
        eos_token_ids=trunk.eos_token_ids,
        vocab_size=trunk.vocab_size,
        priority=trunk.priority,
        http_worker_ipc=trunk.http_worker_ipc,
    )
    child.tokenizer = trunk.tokenizer
    child.time_stats.forward_entry_time = trunk.time_stats.forward_entry_time
    child.time_stats.wait_queue_entry_time = trunk.time_stats.wait_queue_entry_time
    # A branch's KV enters the tree with the join, under the linear ids.
    child.skip_radix_cache_insert = True
    child.path, child.label = path, label
    child.join_family(family, automaton, parent)
    if child.return_logprob:
        child.logprob.input_token_logprobs_val = []
        child.logprob.input_token_logprobs_idx = []
    child.append_known(list(own))
    child.flushed = len(own)
    # What is known when a branch starts is text of the prompt.
    child.prompt_len = min(parent.prompt_len, len(prefix)) + len(own)
    child.automaton.feed(own)
    child.segment_start = len(child.output_ids)
    plan(child)
    return child


def _sampling_params(family: Family, automaton: Automaton) -> Any:
    """The request's parameters, for the branches of the block just read.

    `max_new_tokens` is a fair share of what is left: SGLang's admission reserves
    that much for a running row. The bound itself is the family's.
    """
    params = family.trunk.sampling_params
    own = copy.copy(params)
    left = max(params.max_new_tokens - family.generated, 0)
    own.max_new_tokens = max(left // max(len(automaton.frames[-1].outlines), 1), 1)
    own.min_new_tokens = 0
    return own
