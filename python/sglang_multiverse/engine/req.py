"""One sequence of a family: the trunk a client asked for, or a branch of it.

Every sequence keeps one invariant: its ids (`origin_input_ids + output_ids`) are the text
it sees, in order, and its row holds the KV of the first `kv_committed_len` of them. A parked
sequence's ids run ahead of its row: the text of its branches is appended in linear order as it
becomes final, which is what a client streams, and the row catches up at the join.
"""

from __future__ import annotations

import time
from array import array
from collections import deque
from typing import TYPE_CHECKING, Any

from sglang.srt.managers.schedule_batch import BaseFinishReason, Req

from ..structure import Automaton
from . import known, reading
from .logprobs import LogprobRows
from .metrics import Wait
from .stage import DECODING, TRANSITIONS, Fork, IllegalTransitionError, Stage

if TYPE_CHECKING:
    import torch

    from ..structure import Layout
    from .family import Family
    from .replay import ForkPoint


class MultiverseReq(Req):
    """SGLang's request, with its place in a family.

    Attributes:
        path: 1-based branch indices from the trunk; `()` for the trunk.
        parent, children: the tree; `children` only while parked or replaying.
        automaton: the reading of all ids up to the point where `children`
            branch off; of all ids when there are none.
        depth: blocks open around this sequence, which is its nesting level.
        position_offset: position id minus row index, for the next token.
        segment_start: output index of the first token that a stop string may match.
        flushed: how many own tokens the parent's ids already hold.
        prompt_len: how many of the ids are the prompt's: the first ones.
        closed: a branch whose text is complete.
        tag_read_at: when the tag was read that it last drained for; 0 if it never did.
        wait: the fork that it comes from, or the join it comes out of, until it decodes.
        slots: int32 `[n]`, a closed branch's own KV slots, `[fork, fork + n)` of
            its ids, from the moment it gives its row back until the join.
        fork_at: index after the `</Goal>` the children branch off from.
        replaying: the children's text is known and part of the ids already.
        suspended: live branches that wait while an earlier block is replayed.
        discards: the next sampled token is not wanted (the ids go on, or end).
        extending: extends of it that were launched and have no result yet.
        stint: counts how often it left the batches; a step that was launched in an
            earlier stint, as happens with overlap, has no result for it.
        force: ids that replace the next sampled ones.
        option_error: what is wrong with the request, until it is queued and refused.
        queued_at: when it was first queued; a retracted request keeps its place.
        blocks: those of known text, in order.
        fork_points: those of them that fork, and whose goal is still beyond the row.
        layout: of the known text, where whole blocks of it are computed in line.
    """

    family: Family
    path: tuple[int, ...] = ()
    label: str = ""
    parent: MultiverseReq | None = None
    option_error: str | None = None
    queued_at: float = 0.0
    think_end_ids: list[int] | None = None
    reasoning_read = 0  # tokens of the answer that `streamer.count_reasoning` has seen
    finished_len: int | None

    def join_family(
        self, family: Family, automaton: Automaton, parent: MultiverseReq | None = None
    ) -> None:
        self.family = family
        self.parent = parent
        self.children: list[MultiverseReq] = []
        self.automaton = automaton
        self.depth = automaton.depth if parent is not None else 0
        self.position_offset = 0 if parent is None else parent.position_offset
        self.stage = Stage.QUEUED if parent is None else Stage.EXTEND
        self.slots: torch.Tensor | None = None
        self.flushed = 0
        self.flush_at = 0
        self.prompt_len = len(self.origin_input_ids)
        self.closed = False
        self.discards = False
        self.extending = 0
        self.stint = 0
        self.force: deque[int] = deque()
        self.fork_points: list[ForkPoint] = []
        self.blocks: list[ForkPoint] = []
        self.layout: Layout | None = None
        self.fork_at = 0
        self.replaying = False
        self.suspended: Fork | None = None
        self.segment_start = len(self.output_ids)
        self.sampled: int | None = None  # the token kept of this step, None if dropped
        self.tag_read_at = 0.0
        self.wait: Wait | None = None
        self.replaced = False  # that token was forced in place of the sampled one
        self.news = True  # the last step did more than add one more token to a trunk

    @property
    def is_branch(self) -> bool:
        return self.parent is not None

    def ancestors(self) -> list[MultiverseReq]:
        """The sequences this one branched off from, the trunk first."""
        return [] if self.parent is None else [*self.parent.ancestors(), self.parent]

    def become(self, stage: Stage) -> None:
        """Go on to `stage`. Raises `IllegalTransitionError` where the table has no such step."""
        if stage not in TRANSITIONS[self.stage]:
            raise IllegalTransitionError(f"{self.rid}: from {self.stage.value} to {stage.value}")
        if self.stage in DECODING and stage not in DECODING:
            self.stint += 1
        if stage is Stage.DRAIN:
            self.tag_read_at = time.perf_counter()
        elif stage is Stage.DECODE and self.wait is not None:
            self.family.waits.append(self.wait._replace(ended=time.perf_counter()))
            self.wait = None
        self.stage = stage
        self.family.restless = True

    @property
    def holds_slots(self) -> bool:
        """Whether it holds KV: in a row, or, a closed branch, without one."""
        return self.slots is not None or bool(self.kv.holds_kv)

    @property
    def row_len(self) -> int:
        """Tokens whose KV is held, borrowed ones included."""
        if self.slots is not None:
            return len(self.origin_input_ids) + len(self.slots)
        return self.kv.kv_committed_len if self.kv.holds_kv else 0

    @property
    def is_drained(self) -> bool:
        """Whether all its ids have their KV, or will when the step in flight is done."""
        return self.row_len >= self.seqlen

    @property
    def decodes(self) -> bool:
        """Whether it belongs in the next decode step, as far as the results that are in tell."""
        if self.finished_reason is not None:
            return False
        if self.stage in DECODING:
            return self.stage is Stage.DECODE or not self.is_drained
        return self.extending > 0 and not self.discards and self.inflight_middle_chunks <= 0

    @property
    def known_end(self) -> int:
        """How far the ids are this row's to compute: a live branch computes its own."""
        if self.suspended is not None:
            return self.suspended.fork_at
        return self.fork_at if self.children and not self.replaying else self.seqlen

    def park(self, fork_at: int, *, replaying: bool) -> None:
        """Wait, at `</Goal>`, for the branches that follow it.

        A retracted parent may have to replay an earlier block first: its live
        branches, which hold no rows then, stand aside until `unpark`.
        """
        if replaying and self.children:
            self.suspended = Fork(self.children, self.fork_at, self.flush_at)
        self.become(Stage.PARKED)
        self.fork_at = fork_at
        self.replaying = replaying
        self.flush_at = 0

    @property
    def target(self) -> int:
        """Where the next extend must stop: the next fork in known text, or its end."""
        end = self.known_end
        return min(self.fork_points[0].goal_end, end) if self.fork_points else end

    def unpark(self) -> None:
        """The branches at work are done with; suspended ones come back."""
        self.children, self.fork_at, self.flush_at = self.suspended or Fork([], 0, 0)
        self.suspended = None
        self.replaying = False

    def set_discards(self, extend_end: int) -> None:
        """Decide, before an extend to `extend_end`, whether its sampled token is wanted."""
        forks = bool(self.fork_points) and self.fork_points[0].goal_end == extend_end
        self.discards = extend_end < self.seqlen or self.closed or bool(self.children) or forks

    def ids(self) -> array[int]:
        return self.origin_input_ids + self.output_ids

    # --- SGLang's hooks ----
    def reset_for_retract(self) -> None:
        super().reset_for_retract()
        self.extending = 0
        self.stint += 1

    def set_finish_with_abort(self, *args: Any, **kwargs: Any) -> None:
        """SGLang replaces the prompt by one token, so that nothing forks any more."""
        super().set_finish_with_abort(*args, **kwargs)
        self.blocks, self.fork_points, self.layout = [], [], None

    def next_output_finishes_by_length(self) -> bool:
        """A branch never does; what stands in its `max_new_tokens` is a share (`fork`)."""
        is_answer = self.parent is None and self.stage is not Stage.DRAIN
        return is_answer and bool(super().next_output_finishes_by_length())

    def refresh_fill_ids(self) -> None:
        """The ids of the row after this extend: all known ones, up to the next fork."""
        super().refresh_fill_ids()
        end = self.target if self.stage in (Stage.QUEUED, Stage.EXTEND) else self.seqlen
        if len(self.full_untruncated_fill_ids) > end:
            self.full_untruncated_fill_ids = self.full_untruncated_fill_ids[:end]

    def refresh_known(self, end: int) -> None:
        """The ids `[0, end)`, whatever the next extend is to stop at: what the tree is given."""
        super().refresh_fill_ids()
        self.full_untruncated_fill_ids = self.full_untruncated_fill_ids[:end]

    def init_next_round_input(self, tree_cache: Any = None, cow_mamba: bool | None = None) -> None:
        if tree_cache is not None:
            try:
                known.match_prefix(self, tree_cache)
            except Exception as error:
                # SGLang is choosing a batch; the family is failed when that has run.
                self.family.error = error
                self.fork_points, self.layout, self.position_offset = [], None, 0
                super().init_next_round_input(tree_cache, cow_mamba)
        else:  # the next chunk of a chunked prefill
            self.refresh_fill_ids()
        self.set_discards(len(self.full_untruncated_fill_ids))

    def update_finish_state(self, new_accepted_len: int = 1) -> None:
        """SGLang calls this right after it appended a sampled token."""
        self.news = True
        if self.finished():
            return
        if self.to_finish is not None or new_accepted_len == 0:
            super().update_finish_state(new_accepted_len)
            return
        try:
            reading.observe(self)
        except Exception as error:
            # In the middle of SGLang's loop over the batch, where it would end
            # every request; the scheduler fails this family when the loop is done.
            self.family.error = error

    def check_finish(self) -> None:
        """SGLang's own stop conditions, for the trunk."""
        super().update_finish_state()

    def stop_reason(self, token: int) -> BaseFinishReason | None:
        """Why SGLang would end this sequence at `token`; leaves no mark."""
        if not self._check_str_based_finish():
            self._check_token_based_finish([token])
        reason, self.finished_reason, self.finished_len = self.finished_reason, None, None
        return reason

    @property
    def stops_are_dormant(self) -> bool:
        """Whether the user's stop strings and ids mean nothing here: `stop_in_blocks` is off.

        The tag that ended a block is the block's: no token may match yet.
        """
        if self.family.options.stop_in_blocks:
            return False
        return bool(self.automaton.frames) or len(self.output_ids) == self.segment_start

    def _check_str_based_finish(self, new_accepted_len: int = 1) -> bool:
        if self.stops_are_dormant:
            return False
        return bool(super()._check_str_based_finish(new_accepted_len))

    def _check_token_based_finish(self, new_accepted_tokens: list[int]) -> bool:
        ends = self.family.vocabulary.eos_ids
        if self.stops_are_dormant and ends.isdisjoint(new_accepted_tokens):
            return False
        return bool(super()._check_token_based_finish(new_accepted_tokens))

    def _stop_match_tail_len(self, new_accepted_len: int) -> int:
        # A stop string must not be found in a header, nor, after a join, in the
        # text of a branch that it has ended already.
        own = len(self.output_ids) - self.segment_start
        return int(min(super()._stop_match_tail_len(new_accepted_len), max(own, 1)))

    def update_reasoning_tokens(self, token_id: Any, think_end_ids: Any) -> None:
        """Left to `streamer`: this token may yet be dropped, and branches have theirs."""
        if self.require_reasoning:
            self.think_end_ids = think_end_ids
        else:
            super().update_reasoning_tokens(token_id, think_end_ids)

    def append_known(self, ids: list[int], logprobs: LogprobRows | None = None) -> None:
        """Append ids that were not sampled here: forced ones, or a branch's (`logprobs`)."""
        self.output_ids.extend(ids)
        if self.return_logprob:
            rows = logprobs if logprobs is not None else LogprobRows.of_forced(ids)
            rows.append_to(self)
