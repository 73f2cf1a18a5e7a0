"""One sequence of a family: the trunk a client asked for, or a branch of it.

Every sequence keeps one invariant: its ids (`origin_input_ids + output_ids`) are
the text it sees, in order, and its row holds the KV of the first
`kv_committed_len` of them. A parked sequence's ids run ahead of its row: the
text of its branches is appended in linear order as it becomes final, which is
what a client streams, and the row catches up at the join.
"""

from __future__ import annotations

from array import array
from collections import deque
from enum import Enum, unique
from typing import TYPE_CHECKING, Any, NamedTuple

from sglang.srt.managers.schedule_batch import BaseFinishReason, Req

from ..structure import Automaton

if TYPE_CHECKING:
    from .family import Family
    from .replay import ForkPoint


@unique
class Stage(Enum):
    """Where a sequence stands between two steps."""

    QUEUED = "queued"  # trunk in SGLang's queue or chunked prefill
    EXTEND = "extend"  # known ids wait for their KV
    DECODE = "decode"  # a row of the running batch
    DRAIN = "drain"  # one more decode step, for the KV of the last token
    PARKED = "parked"  # its branches are at work; the row is kept, locked
    CLOSED = "closed"  # a finished branch that waits for its siblings


class Fork(NamedTuple):
    """The branches of a parked sequence: see the attributes of `MultiverseReq`."""

    children: list[MultiverseReq]
    fork_at: int
    flush_at: int


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
        closed: a branch whose text is complete.
        fork_at: index after the `</Goal>` the children branch off from.
        replaying: the children's text is known and part of the ids already.
        suspended: live branches that wait while an earlier block is replayed.
        discards: the next sampled token is not wanted (the ids go on, or end).
        force: ids that replace the next sampled ones.
        all_fork_points: the blocks of known text, in order.
        fork_points: those of them whose goal is still beyond the row.
    """

    family: Family
    path: tuple[int, ...] = ()
    label: str = ""
    parent: MultiverseReq | None = None
    option_error: str | None = None
    think_end_ids: list[int] | None = None
    reasoning_read = 0  # tokens of the answer that `count_reasoning` has seen
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
        self.flushed = 0
        self.flush_at = 0
        self.closed = False
        self.discards = False
        self.force: deque[int] = deque()
        self.fork_points: list[ForkPoint] = []
        self.all_fork_points: list[ForkPoint] = []
        self.fork_at = 0
        self.replaying = False
        self.suspended: Fork | None = None
        self.segment_start = len(self.output_ids)
        self.sampled: int | None = None  # the token kept of this step, None if dropped
        self.replaced = False  # that token was forced in place of the sampled one

    @property
    def is_branch(self) -> bool:
        return self.parent is not None

    @property
    def row_len(self) -> int:
        """Tokens whose KV the row holds."""
        return self.kv.kv_committed_len if self.kv.holds_kv else 0

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
        self.stage = Stage.PARKED
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

    # --- SGLang's hooks -------------------------------------------------------

    def refresh_fill_ids(self) -> None:
        """The ids of the row after this extend: all known ones, up to the next fork."""
        super().refresh_fill_ids()
        end = self.target if self.stage in (Stage.QUEUED, Stage.EXTEND) else self.seqlen
        if len(self.full_untruncated_fill_ids) > end:
            self.full_untruncated_fill_ids = self.full_untruncated_fill_ids[:end]

    def init_next_round_input(self, tree_cache: Any = None, cow_mamba: bool | None = None) -> None:
        if tree_cache is not None:
            self.family.match_prefix(self, tree_cache)
        else:  # the next chunk of a chunked prefill
            self.refresh_fill_ids()
        self.set_discards(len(self.full_untruncated_fill_ids))

    def update_finish_state(self, new_accepted_len: int = 1) -> None:
        """SGLang calls this right after it appended a sampled token."""
        if self.finished():
            return
        if self.to_finish is not None or new_accepted_len == 0:
            super().update_finish_state(new_accepted_len)
            return
        try:
            self.family.observe(self)
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

    def _stop_match_tail_len(self, new_accepted_len: int) -> int:
        # A stop string must not be found in a header, nor, after a join, in the
        # text of a branch that it has ended already.
        own = len(self.output_ids) - self.segment_start
        return int(min(super()._stop_match_tail_len(new_accepted_len), max(own, 1)))

    def update_reasoning_tokens(self, token_id: Any, think_end_ids: Any) -> None:
        """Left to `count_reasoning`: this token may yet be dropped, and branches have theirs."""
        if self.require_reasoning:
            self.think_end_ids = think_end_ids
        else:
            super().update_reasoning_tokens(token_id, think_end_ids)

    def count_reasoning(self) -> None:
        """Bring `reasoning_tokens` up to date with the linear text, branches included."""
        if self.think_end_ids:
            ids = list(self.output_ids_through_stop)
            super().update_reasoning_tokens(ids[self.reasoning_read :], self.think_end_ids)
            self.reasoning_read = len(ids)

    def append_known(self, ids: list[int], logprobs: LogprobRows | None = None) -> None:
        """Append ids that were not sampled here: forced ones, or a branch's (`logprobs`)."""
        self.output_ids.extend(ids)
        if self.return_logprob:
            rows = logprobs if logprobs is not None else LogprobRows.of_forced(ids)
            rows.append_to(self)

    def settle_logprobs(self) -> None:
        """Bring the logprob lists in line with what `observe` made of the token."""
        if not self.return_logprob:
            return
        logprob, n = self.logprob, len(self.output_ids)
        for name in LogprobRows.NAMES:
            rows = getattr(logprob, name)
            if rows:
                del rows[n:]
        if self.replaced and n:
            LogprobRows.of_forced([self.output_ids[-1]]).overwrite_last(self)


class LogprobRows:
    """A slice of a request's per-token logprob lists, kept in SGLang's own shape."""

    NAMES = (
        "output_token_logprobs_val",
        "output_token_logprobs_idx",
        "output_top_logprobs_val",
        "output_top_logprobs_idx",
        "output_token_ids_logprobs_val",
        "output_token_ids_logprobs_idx",
    )

    def __init__(self, rows: dict[str, list[Any]]) -> None:
        self.rows = rows

    @classmethod
    def of_forced(cls, ids: list[int]) -> LogprobRows:
        """A forced token has no logprob: it was not drawn from the distribution."""
        rows: dict[str, list[Any]] = {name: [None] * len(ids) for name in cls.NAMES}
        rows["output_token_logprobs_idx"] = list(ids)
        return cls(rows)

    @classmethod
    def of(cls, req: Req, lo: int, hi: int) -> LogprobRows:
        return cls({name: list((getattr(req.logprob, name) or [])[lo:hi]) for name in cls.NAMES})

    def _wanted(self, req: Req) -> list[str]:
        names = list(self.NAMES[:2])
        if req.logprob.top_logprobs_num > 0:
            names += self.NAMES[2:4]
        if req.logprob.token_ids_logprob is not None:
            names += self.NAMES[4:]
        return names

    def append_to(self, req: Req) -> None:
        for name in self._wanted(req):
            getattr(req.logprob, name).extend(self.rows[name])

    def overwrite_last(self, req: Req) -> None:
        for name in self._wanted(req):
            getattr(req.logprob, name)[-1] = self.rows[name][-1]
