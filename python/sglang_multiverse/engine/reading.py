"""What a sampled token does to its sequence: kept, replaced, dropped; and what must follow.

SGLang calls this in the middle of its loop over a batch, so nothing here touches
KV: `observe` only reads the token and notes in the sequence's stage, `closed`,
and in the family's `ending` what the scheduler must do when the loop is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sglang.srt.managers.schedule_batch import FINISH_LENGTH, FINISH_MATCHED_STR

from ..structure import Automaton, Phase, Role
from .stage import Stage
from .stops import locate

if TYPE_CHECKING:
    from .family import Family
    from .req import MultiverseReq

_BLOCK_ENDS = frozenset({Role.BLOCK_CLOSE, Role.CONCLUSION_CLOSE})


def observe(req: MultiverseReq) -> None:
    """Read the token SGLang just appended to `req.output_ids`."""
    family = req.family
    req.sampled, req.replaced = None, False
    if req.discards or req.stage is Stage.DRAIN or family.ending is not None:
        req.output_ids.pop()
        return
    token = req.output_ids[-1]
    if req.extending or req.force or not family.is_text(token):
        _observe(req, token)
        return
    req.automaton.skip(1)
    _keep(req, token)
    if req.parent is not None or len(req.output_ids) >= req.sampling_params.max_new_tokens:
        _check_ends(req, None)
        return
    req.news = False


def _observe(req: MultiverseReq, token: int) -> None:
    """The same for a token that may mean something, or that may be replaced."""
    family = req.family
    started = req.extending > 0
    if req.stage is not Stage.DECODE:
        req.become(Stage.DECODE)
    if room(family, req.automaton) <= 0:
        # A forced header, or a prompt that wants no answer, has used it up.
        if not req.is_branch:
            req.check_finish()
        if not req.finished():
            req.output_ids.pop()
            family.ending = FINISH_LENGTH(length=family.generated)
        return
    if req.is_branch and not 0 <= token < family.vocab_size:
        # What SGLang says of it; its next step would read beyond the embeddings.
        req.output_ids.pop()
        family.ending = FINISH_MATCHED_STR(matched="NaN happened")
        return
    kept = _choose(req, token)
    if kept is None:
        req.output_ids.pop()
        return
    req.output_ids[-1] = token = kept
    family.forced += req.replaced
    _keep(req, token)
    role = req.automaton.push(token)
    _check_ends(req, role)
    if role is Role.GOAL_CLOSE and not req.finished():
        if family.may_fork:
            req.become(Stage.DRAIN)
        else:
            # Decoded in line, its KV is not what §3 defines for these ids.
            family.trunk.skip_radix_cache_insert = True
    plain = req.parent is None and req.stage is Stage.DECODE and not req.replaced
    req.news = started or not plain or bool(req.finished())


def _keep(req: MultiverseReq, token: int) -> None:
    req.sampled = token
    req.family.generated += 1
    req.family.note_delta(req, token)


def forced_id(req: MultiverseReq, place: int) -> int | None:
    """The id that stands in place of the sampled one, whatever that is.

    `place` is the token's among the own ones of `req`, from 1 on.
    """
    if req.force:
        return req.force[0]
    budget = req.family.options.max_path_tokens
    if budget is not None and place >= budget and may_close(req):
        return req.family.vocabulary.tags.id_of[Role.BRANCH_CLOSE]
    return None


def may_close(req: MultiverseReq) -> bool:
    """Whether `</Path>` could come next: `req` is a branch that is open, and no block in it."""
    automaton = req.automaton
    return req.is_branch and automaton.phase is Phase.BRANCH and automaton.depth == req.depth


def _choose(req: MultiverseReq, token: int) -> int | None:
    """What stands in the sampled token's place; `None` when the answer ends before it.

    `inflight.Replacement` does the same on the device.
    """
    if not req.is_branch:
        return token
    family = req.family
    close = family.vocabulary.tags.id_of[Role.BRANCH_CLOSE]
    if (forced := forced_id(req, len(req.output_ids))) is not None:
        req.replaced = bool(req.force) or forced != token
        if req.force:
            req.force.popleft()
        return forced
    in_branch = may_close(req)
    if in_branch and token in family.closing_ids:
        req.replaced = True
        return close
    if (reason := req.stop_reason(token)) is not None:
        if in_branch:
            req.force.append(close)
            return token
        # The branch stops amid a plan or a conclusion of its own, where no
        # tag can close it (a stop string, or no guard): the answer ends.
        family.ending, family.ended = reason, req
        return None if token in family.closing_ids else token
    return token


def room(family: Family, automaton: Automaton) -> int:
    """How many tokens may still follow what `automaton` has read."""
    left = family.trunk.sampling_params.max_new_tokens - family.generated
    limit = family.options.max_critical_tokens
    critical = automaton.position - family.prompt_position
    return int(max(0, left if limit is None else min(left, limit - critical)))


def _check_ends(req: MultiverseReq, role: Role | None) -> None:
    family = req.family
    limit = family.options.max_critical_tokens
    too_long = limit is not None and req.automaton.position - family.prompt_position >= limit
    if req.parent is None:
        if role in _BLOCK_ENDS and not req.automaton.frames and not family.options.stop_in_blocks:
            # Stops were dormant in the block that ended here, this tag included.
            req.segment_start = len(req.output_ids)
        req.check_finish()
        if req.finished_reason is not None and req.segment_start:
            req.finished_reason = locate(req.finished_reason, req, req)
        if too_long and not req.finished():
            req.finished_reason = FINISH_LENGTH(length=limit)
            req.finished_len = len(req.output_ids)
        return
    if too_long or family.generated >= family.trunk.sampling_params.max_new_tokens:
        family.ending = family.ending or FINISH_LENGTH(length=family.generated)
    if role is Role.BRANCH_CLOSE and req.automaton.depth == req.depth:
        req.closed = True
        req.become(Stage.DRAIN)
