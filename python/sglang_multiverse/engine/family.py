"""A request and all its branches: the tree, its text, its end (DESIGN.md §4).

A family moves in two calls. `reading.observe` is made once for every sampled
token, inside SGLang's result processing, and only reads the token. `settle` then
makes happen what must follow, once per sequence and step, when SGLang is done
with the batch: fork, close, go on with known text.
"""

from __future__ import annotations

import itertools
import sys
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from sglang.srt.managers.schedule_batch import FINISH_LENGTH, BaseFinishReason
from sglang.srt.mem_cache.common import release_kv_cache
from sglang.srt.runtime_context import get_serving

from ..structure import Automaton, Limits
from .answer import Summary
from .deltas import Deltas
from .http.reasoning import NAME
from .known import plan, requeue
from .logprobs import LogprobRows
from .metrics import Wait
from .options import MultiverseArgs
from .req import MultiverseReq
from .stops import locate
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from .kv import Memory
    from .scoring import Scores

_ARRIVALS = itertools.count()


class Family:
    """The tree of sequences of one request.

    Attributes:
        kept: the trunk, while SGLang may hold it nowhere: it is parked, or waits.
        arrival: order of arrival in this process; of two families with the same
            priority the older one goes first.
        ending: set once the whole family must end; later tokens are dropped.
        ended: the branch that met the stop which is the family's `ending`.
        error: what went wrong while SGLang called us; the family must be failed with it.
        restless: a sequence changed its stage since `extends` last looked.
        hides: whole blocks of known text are computed in line, in one extend, with what
            each token may not see; otherwise in pieces, as they were decoded.
        generated: tokens after the prompt, forced ones included.
        forced: how many of them were forced.
        prefilled: tokens that went through an extend.
        reasoning: what `reasoning_tokens` has read of the linear text, where thinking and
            blocks count as that (`--reasoning-parser multiverse`).
        scores: log probabilities of a prompt with blocks, if they were asked for.
        waits: forks and joins that are over since `metrics` last looked.
        deltas: what live branches write, for a client that asked for it.
        closing_ids: the tokens that end a branch, in place of which `</Path>` stands.
    """

    def __init__(
        self,
        trunk: MultiverseReq,
        options: MultiverseArgs,
        vocabulary: Vocabulary,
        memory: Memory,
        *,
        may_fork: bool,
        hides: bool,
        live_deltas: bool = False,
        return_sequences: bool = False,
    ) -> None:
        self.arrival = next(_ARRIVALS)
        self._trunk = weakref.ref(trunk)
        self.kept: MultiverseReq | None = None
        self.options = options
        self.vocabulary = vocabulary
        self.memory = memory
        self.may_fork = may_fork
        self.hides = hides
        self.return_sequences = return_sequences
        total = options.max_total_branches if may_fork else 0
        # A chain of nested branches holds a row each, and its trunk one.
        depth = min(options.max_depth, memory.pool.size - 1)
        self.limits = Limits(depth, options.max_branches, total)
        self.ending: BaseFinishReason | None = None
        self.ended: MultiverseReq | None = None
        self.error: Exception | None = None
        self.restless = True
        self.generated = self.forced = self.prefilled = 0
        self.blocks = self.branches = self.depth = 0
        self.max_concurrent = 0
        self.critical_path = 0
        self.scores: Scores | None = None
        self.reasoning: Automaton | None = None
        self.deltas = Deltas() if live_deltas else None
        self.waits: list[Wait] = []

        params = trunk.sampling_params
        stops = params.stop_token_ids if options.stop_in_blocks else None
        self.closing_ids = vocabulary.eos_ids | frozenset(stops or ())
        if params.ignore_eos:
            self.closing_ids = frozenset()
        self.vocab_size = trunk.vocab_size or sys.maxsize
        self._telling_ids = self.closing_ids | vocabulary.tags.role_of.keys()
        self._reads_plainly = (
            not (params.stop_strs or params.stop_regex_strs)
            and options.max_critical_tokens is None
            and options.max_path_tokens is None
            and may_fork  # no grammar
        )

        prompt = trunk.origin_input_ids
        automaton = Automaton(vocabulary.tags)
        trunk.join_family(self, automaton)
        if vocabulary.tags.has_tags(prompt):
            automaton.feed(prompt)
        else:
            automaton.skip(len(prompt))
        plan(trunk)
        self.prompt_position = automaton.position
        if get_serving().reasoning_parser == NAME:
            self.reasoning = automaton.copy()

    # --- the tree --------------------------------------------------------------

    @property
    def trunk(self) -> MultiverseReq:
        """The sequence the client asked for.

        It holds its family and not the other way round: both go when SGLang lets go of it.
        """
        if (trunk := self._trunk()) is None:
            raise ReferenceError("the family of a request that is gone")
        return trunk

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

    @property
    def holds_slots(self) -> bool:
        return any(member.holds_slots for member in self.members())

    @property
    def live_branches(self) -> int:
        """Branches that have not written their closing tag, whatever they wait for."""
        return sum(member.is_branch and not member.closed for member in self.members())

    def note_concurrent(self, branches: int) -> None:
        self.max_concurrent = max(self.max_concurrent, branches)

    # --- text ------------------------------------------------------------------

    def is_text(self, token: int) -> bool:
        """Whether a sampled token can only be ordinary text: no tag, no end, no budget's last."""
        return (
            self._reads_plainly and 0 <= token < self.vocab_size and token not in self._telling_ids
        )

    def note_delta(self, req: MultiverseReq, token: int) -> None:
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

    # --- ends ------------------------------------------------------------------

    def finish(self, reason: BaseFinishReason) -> None:
        """End the whole family now; every slot and row goes back."""
        self._drop_replays()
        self.flush(partial=True)
        self.critical_path = self._longest_path()
        if self.ended is not None and reason is self.ending:
            reason = locate(reason, self.trunk, self.ended)
        self.ended = None
        self._drop_branches()
        trunk = self.trunk
        trunk.finished_reason = reason
        trunk.finished_len = len(trunk.output_ids)
        if trunk.kv.holds_kv:
            release_kv_cache(trunk, self.memory.tree_cache, checkpoint=True)
        trunk.time_stats.set_completion_time()

    def _longest_path(self) -> int:
        # A prompt that ends in a branch is cut back to its fork: nothing may be ahead of it.
        longest = max(m.automaton.position for m in self.members())
        return max(longest - self.prompt_position, 0)

    def summary(self) -> Summary:
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
                    self._end(child)
                req.unpark()

    def _drop_branches(self) -> None:
        for req in reversed(list(self.members())):
            if req.is_branch:
                self._end(req)
            req.children = []

    def _end(self, branch: MultiverseReq) -> None:
        self._free(branch, checkpoint=False)
        # Of a step in flight it wants nothing.
        branch.finished_reason = branch.finished_reason or FINISH_LENGTH(length=0)

    def _free(self, req: MultiverseReq, *, checkpoint: bool) -> None:
        """Give back what `req` owns; a second call finds nothing."""
        if req.slots is not None:
            self.memory.free_slots(req)
        elif req.kv.holds_kv:
            release_kv_cache(req, self.memory.tree_cache, checkpoint=checkpoint)

    # --- retraction ------------------------------------------------------------

    def retract(self) -> None:
        """Give back every row and slot. What is known stays known and is computed anew.

        The trunk's KV goes to the tree, evictable: it may still be there later.
        """
        self.retract_from(self.trunk)

    def retract_from(self, top: MultiverseReq) -> None:
        """Give back what `top` and everything below it hold."""
        below = [m for m in self.members() if m.path[: len(top.path)] == top.path]
        for req in reversed(below):
            if req.holds_slots:
                keep = not req.is_branch and not req.skip_radix_cache_insert
                if keep:
                    req.refresh_fill_ids()
                self._free(req, checkpoint=keep)
                req.reset_for_retract()
            requeue(req)
