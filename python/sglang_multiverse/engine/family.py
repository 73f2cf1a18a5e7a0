"""A request and all its branches: fork, process, join (DESIGN.md §4).

A family is driven by two calls. `observe` is made once for every sampled token,
inside SGLang's result processing, and only reads the token: it may drop it,
replace it, or mark what must happen. `settle` then makes it happen, once per
sequence and step, when SGLang is done with the batch.
"""

from __future__ import annotations

import copy
import itertools
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sglang.srt.managers.schedule_batch import FINISH_LENGTH, BaseFinishReason
from sglang.srt.mem_cache.common import match_kv_cache, release_kv_cache

from ..structure import Allowed, Automaton, Limits, Phase, Role, allowed, outline_label
from . import kv
from .deltas import Deltas
from .options import MultiverseArgs
from .replay import ForkPoint, fork_points
from .req import LogprobRows, MultiverseReq, Stage
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from sglang.srt.mem_cache.base_prefix_cache import BasePrefixCache
    from sglang.srt.mem_cache.memory_pool import ReqToTokenPool

_ARRIVALS = itertools.count()


class InvariantError(RuntimeError):
    """The engine's account of a family and the language's differ: a bug, never the user's."""


class Family:
    """The tree of sequences of one request.

    Attributes:
        arrival: order of arrival in this process; the oldest family goes first.
        ending: set once the whole family must end; later tokens are dropped.
        error: what went wrong in `observe`; the family must be failed with it.
        generated: tokens after the prompt, forced ones included.
        forced: how many of them were forced.
        prefilled: tokens that went through an extend.
        deltas: what live branches write, for a client that asked for it.
    """

    def __init__(
        self,
        trunk: MultiverseReq,
        options: MultiverseArgs,
        vocabulary: Vocabulary,
        pool: ReqToTokenPool,
        tree_cache: BasePrefixCache,
        *,
        may_fork: bool,
        live_deltas: bool = False,
    ) -> None:
        self.arrival = next(_ARRIVALS)
        self.trunk = trunk
        self.options = options
        self.vocabulary = vocabulary
        self.pool = pool
        self.tree_cache = tree_cache
        self.may_fork = may_fork
        total = options.max_total_branches if may_fork else 0
        self.limits = Limits(options.max_depth, options.max_branches, total)
        self.ending: BaseFinishReason | None = None
        self.error: Exception | None = None
        self.generated = self.forced = self.prefilled = 0
        self.blocks = self.branches = self.depth = 0
        self.max_concurrent = 0
        self.critical_path = 0
        self.deltas: Deltas | None = None
        if live_deltas:
            self.deltas = Deltas()

        prompt = trunk.origin_input_ids
        automaton = Automaton(vocabulary.tags)
        trunk.join_family(self, automaton)
        if vocabulary.tags.has_tags(prompt):
            automaton.feed(prompt)
        else:
            automaton.skip(len(prompt))
        self.plan(trunk)
        self.prompt_position = automaton.position

    # --- the tree --------------------------------------------------------------

    def members(self) -> Iterator[MultiverseReq]:
        """The trunk and every branch alive, parents first, in outline order."""
        stack = [self.trunk]
        while stack:
            req = stack.pop()
            yield req
            stack.extend(reversed(req.children))

    def describe(self) -> str:
        """One line for a log: every sequence with its stage and lengths."""
        return "; ".join(
            f"{m.rid} {m.stage.value} row={m.row_len} ids={m.seqlen} target={m.target}"
            f"{' closed' if m.closed else ''}{' replaying' if m.replaying else ''}"
            for m in self.members()
        )

    @property
    def forked(self) -> bool:
        return bool(self.trunk.children)

    def permitted(self, rows: Sequence[MultiverseReq]) -> list[Allowed]:
        """What each of the family's rows of one step may write next.

        Plans that are being written side by side share `max_total_branches`: what
        one has announced, or is allowed to announce in this very step, is taken
        from the others.
        """
        announced = sum(_announced(member) for member in self.members())
        granted = 0
        found = []
        for req in rows:
            own = _announced(req)
            others = self.branches + announced - own + granted
            may = allowed(req.automaton, self.limits, others)
            found.append(may)
            opens = {Role.BLOCK_OPEN, Role.GOAL_OPEN} if not own else {Role.OUTLINE_OPEN}
            granted += not may.roles.isdisjoint(opens)
        return found

    # --- tokens ----------------------------------------------------------------

    def observe(self, req: MultiverseReq) -> None:
        """Read the token SGLang just appended to `req.output_ids`."""
        req.sampled, req.replaced = None, False
        if req.discards or req.stage is Stage.DRAIN or self.ending is not None:
            req.output_ids.pop()
            return
        if req.stage in (Stage.QUEUED, Stage.EXTEND):
            req.stage = Stage.DECODE
        if self._room(req.automaton) <= 0:
            # A forced header, or a prompt that wants no answer, has used it up.
            if not req.is_branch:
                req.check_finish()
            if not req.finished():
                req.output_ids.pop()
                self.ending = FINISH_LENGTH(length=self.generated)
            return
        sampled = req.output_ids[-1]
        token = self._choose(req, sampled)
        if token is None:
            req.output_ids.pop()
            return
        req.output_ids[-1] = req.sampled = token
        self.forced += req.replaced
        self.generated += 1
        self._note_delta(req, token)
        role = req.automaton.push(token)
        self._check_ends(req, role)
        if role is Role.GOAL_CLOSE and not req.finished():
            if self.may_fork:
                req.stage = Stage.DRAIN
            else:
                # Decoded in line, its KV is not what §3 defines for these ids.
                self.trunk.skip_radix_cache_insert = True

    def _choose(self, req: MultiverseReq, token: int) -> int | None:
        """What stands in the sampled token's place; `None` when the answer ends before it."""
        if req.force:
            req.replaced = True
            return req.force.popleft()
        if not req.is_branch:
            return token
        automaton = req.automaton
        in_branch = automaton.phase is Phase.BRANCH and automaton.depth == req.depth
        close = self.vocabulary.tags.id_of[Role.BRANCH_CLOSE]
        if (reason := req.stop_reason(token)) is not None:
            is_text = token not in self.vocabulary.eos_ids and token not in (
                req.sampling_params.stop_token_ids or ()
            )
            if not in_branch:
                # The branch stops amid a plan or a conclusion of its own, where no
                # tag can close it (a stop string, or no guard): the answer ends.
                self.ending = reason
                return token if is_text else None
            if is_text:
                req.force.append(close)
                return token
            req.replaced = True
            return close
        budget = self.options.max_path_tokens
        if budget is not None and in_branch and len(req.output_ids) >= budget:
            req.replaced = token != close
            return close
        return token

    def _room(self, automaton: Automaton) -> int:
        """How many tokens may still follow what `automaton` has read."""
        room = self.trunk.sampling_params.max_new_tokens - self.generated
        limit = self.options.max_critical_tokens
        critical = automaton.position - self.prompt_position
        return int(max(0, room if limit is None else min(room, limit - critical)))

    def _check_ends(self, req: MultiverseReq, role: Role | None) -> None:
        limit = self.options.max_critical_tokens
        critical = req.automaton.position - self.prompt_position
        too_long = limit is not None and critical >= limit
        if not req.is_branch:
            req.check_finish()
            if too_long and not req.finished():
                req.finished_reason = FINISH_LENGTH(length=limit)
                req.finished_len = len(req.output_ids)
            return
        if too_long or self.generated >= self.trunk.sampling_params.max_new_tokens:
            self.ending = self.ending or FINISH_LENGTH(length=self.generated)
        if role is Role.BRANCH_CLOSE and req.automaton.depth == req.depth:
            req.closed = True
            req.stage = Stage.DRAIN

    # --- steps -----------------------------------------------------------------

    def settle(self, req: MultiverseReq) -> None:
        """Act on what the step just processed did to `req`."""
        if req.finished() or self.ending is not None:
            return
        if req.sampled is None and req.stage is Stage.DRAIN:
            if req.closed:
                req.stage = Stage.CLOSED
            else:
                self._fork(req)
        elif req.sampled is None and req.stage in (Stage.QUEUED, Stage.EXTEND):
            self._advance(req)

    def _advance(self, req: MultiverseReq) -> None:
        """An extend of known ids is done: go on to the next piece of known text."""
        at = req.row_len
        if at < req.target:
            return  # a chunk; the next one follows
        if req.fork_points and req.fork_points[0].goal_end == at:
            self._replay(req, req.fork_points.pop(0))
        elif req.children:
            req.stage = Stage.PARKED  # retracted while parked, and back
        elif req.closed:
            req.stage = Stage.CLOSED

    def _fork(self, req: MultiverseReq) -> None:
        """All of `req` has KV and ends with `</Goal>`: one branch per outline follows."""
        self._spawn(req, known=())

    def _replay(self, req: MultiverseReq, point: ForkPoint) -> None:
        """Known text forks here. Its branches are known wholly, or up to where it ends."""
        ids = req.ids()
        known = [ids[span.lo : span.hi] for span in point.branches]
        if point.complete and point.end == req.seqlen and req.automaton.phase is not Phase.TAIL:
            # The text ends with a tag that ended a block early. The next token is
            # sampled from that tag, which therefore stays in the parent; its KV
            # then is not what §3 defines, so it is kept out of the tree.
            known[-1] = known[-1][:-1]
            self.trunk.skip_radix_cache_insert = True
        base = Automaton(self.vocabulary.tags)
        base.feed(ids[: point.goal_end])
        if not point.complete:
            req.automaton = base
            self._spawn(req, known)
            return
        if not any(known):
            # The block ends right behind its goal: nothing branches off.
            req.stage = Stage.EXTEND
            return
        req.park(point.goal_end, replaying=True)
        req.children = [
            self._child(req, index, own, base.copy(), label="")
            for index, own in enumerate(known, start=1)
            if own
        ]
        for child in req.children:
            child.closed = True

    def _spawn(self, req: MultiverseReq, known: Sequence[array[int]]) -> None:
        """Park `req`, whose ids up to `</Goal>` have KV, and start its branches.

        `known` holds the text that a prompt gives of the first branches; the
        others, and the last known one if its tag is missing, get their header.
        """
        vocabulary, max_tokens = self.vocabulary, self.trunk.sampling_params.max_new_tokens
        base = req.automaton
        frame = base.frames[-1]
        ids = req.ids()
        children: list[MultiverseReq] = []
        headers: list[tuple[int, ...]] = []
        for index, span in enumerate(frame.outlines, start=1):
            label = outline_label(
                vocabulary.text(list(ids[span.lo : span.hi])), index, parent=req.label
            )
            own = known[index - 1] if index <= len(known) else array("q")
            child = self._child(req, index, own, base.copy(), label)
            child.closed = child.automaton.frames[child.depth - 1].closed > 0
            header: tuple[int, ...] = ()
            if child.automaton.phase is Phase.HEAD and not child.closed:
                header = vocabulary.branch_header(label)
                if tuple(own) == header[: len(own)]:
                    header = header[len(own) :]
            children.append(child)
            headers.append(header)

        needed = sum(map(len, headers))
        if self.generated + needed > max_tokens or self._room(base) < max(map(len, headers)):
            self.ending = FINISH_LENGTH(length=self.generated)
            return
        if not req.is_branch and not req.skip_radix_cache_insert:
            # [0, row_len) moves to the tree, locked by the trunk.
            req.stage = Stage.PARKED
            req.refresh_fill_ids()
            self.tree_cache.checkpoint(req, up_to=req.row_len)
        for child, header in zip(children, headers, strict=True):
            self._force(child, header)
        req.park(base.length, replaying=False)
        req.children = children
        self.blocks += 1
        self.branches += len(children)
        self.depth = max(self.depth, children[0].depth)

    def _child(
        self,
        parent: MultiverseReq,
        index: int,
        own: array[int],
        automaton: Automaton,
        label: str,
    ) -> MultiverseReq:
        """A branch over `parent`'s ids as `automaton` has read them, with `own` ids known."""
        trunk = self.trunk
        path = (*parent.path, index)
        prefix = parent.ids()[: automaton.length]
        child = MultiverseReq(
            rid=f"{trunk.rid}#{'.'.join(map(str, path))}",
            origin_input_text="",
            origin_input_ids=prefix,
            sampling_params=self._branch_sampling_params(automaton),
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
        # A branch's KV enters the tree with the join, under the linear ids.
        child.skip_radix_cache_insert = True
        child.path, child.label = path, label
        child.join_family(self, automaton, parent)
        if child.return_logprob:
            child.logprob.input_token_logprobs_val = []
            child.logprob.input_token_logprobs_idx = []
        child.append_known(list(own))
        child.flushed = len(own)
        child.automaton.feed(own)
        child.segment_start = len(child.output_ids)
        self.plan(child)
        return child

    def _branch_sampling_params(self, automaton: Automaton) -> Any:
        """The request's parameters, for one branch.

        `max_new_tokens` is a fair share of what is left: SGLang's admission reserves
        that much for a running row. The bound itself is the family's.
        """
        params = self.trunk.sampling_params
        own = copy.copy(params)
        left = max(params.max_new_tokens - self.generated, 0)
        own.max_new_tokens = max(left // max(len(automaton.frames[-1].outlines), 1), 1)
        own.min_new_tokens = 0
        return own

    def _force(self, req: MultiverseReq, ids: Sequence[int]) -> None:
        """Append ids that the engine, not the model, writes."""
        req.append_known(list(ids))
        req.automaton.feed(ids)
        req.segment_start = len(req.output_ids)
        self.generated += len(ids)
        self.forced += len(ids)
        for token in ids:
            self._note_delta(req, token)

    def _note_delta(self, req: MultiverseReq, token: int) -> None:
        if self.deltas is not None:
            self.deltas.note(req.path, token)

    @property
    def has_deltas(self) -> bool:
        return self.deltas is not None and bool(self.deltas.pending)

    def take_deltas(self) -> list[tuple[str, list[int]]] | None:
        """`(path, ids)` pairs since the last call; `None` if nobody asked for them."""
        return self.deltas.take() if self.deltas is not None else None

    def flush(self, req: MultiverseReq | None = None, *, partial: bool = False) -> None:
        """Append to each parent's ids what its branches have finally written, in order.

        Branch `k` is final as far as it got once the branches before it are
        closed. With `partial` everything is, which ends the family.
        """
        req = req or self.trunk
        while req.flush_at < len(req.children):
            child = req.children[req.flush_at]
            if child.children:
                self.flush(child, partial=partial)
            n = len(child.output_ids)
            if n > child.flushed:
                rows = LogprobRows.of(child, child.flushed, n) if req.return_logprob else None
                req.append_known(list(child.output_ids[child.flushed :]), rows)
                child.flushed = n
            if not (child.closed or partial):
                break
            req.flush_at += 1

    def join_ready(self) -> None:
        """Join, from the leaves up, every sequence whose branches are all closed."""
        for req in reversed(list(self.members())):
            if req.stage is Stage.PARKED and all(c.stage is Stage.CLOSED for c in req.children):
                self._join(req)

    def _join(self, req: MultiverseReq) -> None:
        self.flush(req)
        children = req.children
        ends = [child.row_len + child.position_offset for child in children]
        kv.join_rows(self.pool, req, children)
        req.position_offset = max(ends) - req.row_len
        if not req.replaying:
            for child in children:
                req.automaton.feed(child.output_ids)
            if (
                req.automaton.length != req.row_len
                or req.automaton.position != req.row_len + req.position_offset
            ):
                raise InvariantError(
                    f"{req.rid}: joined to {req.row_len} tokens ending at position "
                    f"{req.row_len + req.position_offset}, read as {req.automaton.length} "
                    f"ending at {req.automaton.position}"
                )
        req.unpark()
        req.stage = Stage.EXTEND
        if not req.children and req.row_len == req.seqlen and req.automaton.phase is Phase.TAIL:
            header = self.vocabulary.conclusion_header
            room = self._room(req.automaton)
            self._force(req, header[:room])
            if room <= len(header):
                self.ending = FINISH_LENGTH(length=self.generated)

    # --- ends ------------------------------------------------------------------

    def finish(self, reason: BaseFinishReason) -> None:
        """End the whole family now; every slot and row goes back."""
        self._drop_replays()
        self.flush(partial=True)
        self.critical_path = self._longest_path()
        self._drop_branches()
        trunk = self.trunk
        trunk.finished_reason = reason
        trunk.finished_len = len(trunk.output_ids)
        if trunk.kv.holds_kv:
            release_kv_cache(trunk, self.tree_cache, checkpoint=True)
        trunk.time_stats.set_completion_time()

    def _longest_path(self) -> int:
        # A prompt that ends in a branch is cut back to its fork: nothing may be ahead of it.
        longest = max(m.automaton.position for m in self.members())
        return max(longest - self.prompt_position, 0)

    def metadata(self) -> dict[str, Any]:
        """What the answer's metadata says of its structure (DESIGN.md §4, Results)."""
        critical = max(self.critical_path, self._longest_path())
        return {
            "tokens": self.generated,
            "critical_path_tokens": critical,
            "degree_of_parallelism": self.generated / critical if critical else 1.0,
            "blocks": self.blocks,
            "branches": self.branches,
            "depth": self.depth,
            "forced_tokens": self.forced,
            "prefilled_tokens": self.prefilled,
            "max_concurrent_branches": self.max_concurrent,
        }

    def _drop_replays(self) -> None:
        """Give up replays under way, so that the live branches are all there is."""
        for req in reversed(list(self.members())):
            if req.replaying:
                for child in req.children:
                    if child.kv.holds_kv:
                        release_kv_cache(child, self.tree_cache, checkpoint=False)
                req.unpark()

    def _drop_branches(self) -> None:
        for req in reversed(list(self.members())):
            if req.is_branch:
                if req.kv.holds_kv:
                    release_kv_cache(req, self.tree_cache, checkpoint=False)
                req.finished_reason = req.finished_reason or FINISH_LENGTH(length=0)
        self.trunk.children = []

    # --- retraction ------------------------------------------------------------

    def retract(self) -> None:
        """Give back every row. What is known stays known and is computed anew.

        The trunk's KV goes to the tree, evictable: it may still be there later.
        """
        for req in reversed(list(self.members())):
            self.retract_one(req)

    def retract_one(self, req: MultiverseReq) -> None:
        """Give back one row; none of its branches may hold one."""
        if req.kv.holds_kv:
            keep = not req.is_branch and not req.skip_radix_cache_insert
            if keep:
                req.refresh_fill_ids()
            release_kv_cache(req, self.tree_cache, checkpoint=keep)
            req.reset_for_retract()
        self.requeue(req)

    def requeue(self, req: MultiverseReq) -> None:
        """`req` lost its row: plan how its known text gets its KV again."""
        if req.replaying:
            req.unpark()
        req.stage = Stage.EXTEND if req.is_branch else Stage.QUEUED
        req.position_offset = req.parent.position_offset if req.parent else 0
        self.plan(req)

    def plan(self, req: MultiverseReq) -> None:
        """Find the blocks in the ids known so far."""
        tags = self.vocabulary.tags
        start = len(req.origin_input_ids) if req.is_branch else 0
        ids = req.ids()[: req.known_end]
        req.fork_points = []
        if tags.id_of[Role.GOAL_CLOSE] in ids[start:]:
            points = fork_points(ids, tags, depth=req.depth, start=start)
            # Live branches stand for the block that is under way.
            req.fork_points = [p for p in points if p.complete or not req.children]
        req.all_fork_points = list(req.fork_points)

    def match_prefix(self, trunk: MultiverseReq, tree_cache: BasePrefixCache) -> None:
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
            reading = Automaton(self.vocabulary.tags)
            reading.feed(ids[: trunk.prefix_len])
            trunk.position_offset = reading.position - trunk.prefix_len
        trunk.refresh_fill_ids()


def _announced(req: MultiverseReq) -> int:
    """Branches of a plan that `req` is writing, or has written and not forked yet; at least one."""
    automaton = req.automaton
    if req.children or automaton.depth <= req.depth:
        return 0
    frame = automaton.frames[-1]
    match frame.phase:
        case Phase.BLOCK:
            return 1
        case Phase.GOAL | Phase.HEAD:
            return max(1, len(frame.outlines))
        case Phase.OUTLINE:
            return len(frame.outlines) + 1
        case _:
            return 0
