"""SGLang's scheduler with families: what runs next, what leaves, what ends."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from sglang.srt.managers.schedule_batch import FINISH_ABORT, NextBatchPlan, Req, ScheduleBatch
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.runtime_context import get_context, get_serving

from ..structure import MissingTagsError
from . import kv
from .family import Family, InvariantError
from .metrics import Metrics
from .options import MultiverseArgs, OptionError, RequestOptions
from .req import MultiverseReq, Stage
from .sampling import dress, undress
from .streamer import MultiverseOutputStreamer
from .upstream import check_hooks, refuse_unsupported
from .vocabulary import Vocabulary

logger = logging.getLogger(__name__)

# Slots kept free per decoding row when a branch is admitted beside others, so that
# it is not retracted again a few steps later.
_HEADROOM = 16


class MultiverseScheduler(Scheduler):
    """Replaces SGLang's `Scheduler`; for a model without the tags it only passes calls on.

    Attributes:
        vocabulary: `None` for a model that does not speak the dialect.
        families: the requests that have forked, oldest first, by rid.
    """

    vocabulary: Vocabulary | None = None
    metrics: Metrics | None = None
    families: dict[str, Family]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_hooks()
        self.families = {}
        super().__init__(*args, **kwargs)
        if self.vocabulary is not None:
            refuse_unsupported(self)
            self.tree_cache.multiverse_rows = self._held_rows
            if self.metrics_reporter.enable_metrics:
                self.metrics = Metrics(self.metrics_collector.labels)

    def init_tokenizer(self) -> None:
        super().init_tokenizer()
        self.options = MultiverseArgs.from_env()
        if not self.options.enable or self.tokenizer is None:
            return
        try:
            self.vocabulary = Vocabulary.of(self.tokenizer, self.model_config.hf_eos_token_id)
        except MissingTagsError as error:
            logger.warning("Multiverse is off, the model is served as plain SGLang does: %s", error)
            return
        if self.enable_overlap:
            logger.info(
                "Overlap scheduling is switched off: a fork must see a step's tokens "
                "before the next step starts"
            )
            get_context().override("sglang_multiverse", disable_overlap_schedule=True)
            self.server_args.disable_overlap_schedule = True
            self.enable_overlap = False

    def get_init_info(self) -> dict[str, Any]:
        info = super().get_init_info()
        info["multiverse"] = self.vocabulary is not None
        return info

    def get_output_streamer_class(self) -> Any:
        if self.vocabulary is None:
            return super().get_output_streamer_class()
        return MultiverseOutputStreamer

    def _held_rows(self) -> dict[str, Any]:
        """KV records of families: rows that may be in no batch, for SGLang's pool check."""
        return {
            member.rid: member.kv
            for family in self.families.values()
            for member in family.members()
            if member.kv.holds_kv
        }

    # --- requests come in --------------------------------------------------------

    def _create_generation_req(self, recv_req: Any, *args: Any, **kwargs: Any) -> Req:
        if self.vocabulary is None:
            return super()._create_generation_req(recv_req, *args, **kwargs)
        req = MultiverseReq(*args, **kwargs)
        if get_serving().allow_auto_truncate:  # SGLang's own cut comes after the prompt is read
            del req.origin_input_ids[self.max_req_input_len :]
        params = req.sampling_params
        asked = (params.custom_params or {}).get("multiverse", {})
        error = None
        try:
            options = RequestOptions.parse(asked, self.options)
        except OptionError as bad:
            options, error = RequestOptions(), str(bad)
        if self.vocabulary.tags_are_special:
            params.skip_special_tokens = False
        may_fork = _may_fork(recv_req, req)
        if not may_fork:
            # Its KV is computed in line, which is not what §3 defines for text
            # with blocks: keep it out of the common space.
            req.cache_salt = f"{req.cache_salt or ''}multiverse:inline"
        Family(
            req,
            options.resolve(self.options),
            self.vocabulary,
            self.req_to_token_pool,
            self.tree_cache,
            may_fork=may_fork,
            live_deltas=options.stream == "branches" and bool(req.stream),
        )
        if not req.origin_input_ids and recv_req.input_embeds is None:
            # SGLang would run an extend of no tokens, which ends the scheduler.
            error = "prompt: it holds no token; at least one is needed"
        if error is None and req.all_fork_points and not may_fork:
            req.fork_points, req.all_fork_points = [], []
        if error is None and req.all_fork_points and recv_req.return_logprob:
            start = recv_req.logprob_start_len
            if start is not None and 0 <= start < len(req.origin_input_ids):
                error = (
                    "logprob_start_len: logprobs of a prompt that holds parallel blocks are not "
                    f"available; allowed: -1 or the prompt's length, {len(req.origin_input_ids)}"
                )
        req.option_error = error
        return req

    def _add_request_to_queue(self, req: Req, is_retracted: bool = False) -> None:
        if not isinstance(req, MultiverseReq):
            super()._add_request_to_queue(req, is_retracted)
            return
        error, req.option_error = getattr(req, "option_error", None), None
        if error is not None and not req.finished() and req.to_finish is None:
            req.set_finish_with_abort(error)
        if req.to_finish is not None:
            # SGLang has replaced the prompt by one token; nothing forks any more.
            req.fork_points, req.all_fork_points = [], []
        if is_retracted or req.retracted_stain:
            req.family.requeue(req)
            if req.is_branch:
                return
        super()._add_request_to_queue(req, is_retracted)
        if req.retracted_stain:
            # What came first goes first again.
            self.waiting_queue.sort(key=_arrival)

    # --- what runs next ----------------------------------------------------------

    def get_next_batch_to_run(
        self, running_batch: ScheduleBatch, last_batch: ScheduleBatch | None
    ) -> NextBatchPlan:
        if self.vocabulary is not None:
            for batch in (running_batch, last_batch):
                if batch is not None and _leave(batch):
                    running_batch.batch_is_full = False
        plan = super().get_next_batch_to_run(running_batch=running_batch, last_batch=last_batch)
        if plan.batch_to_run is None and self.families and plan.running_batch.is_empty():
            self._break_jam()
        return plan

    def get_new_batch_prefill(self, running_batch: ScheduleBatch) -> NextBatchPlan:
        """Families first, oldest first: their next extend; then SGLang's queue."""
        if self.families and self.chunked_req is None:
            batch, blocked = self._next_extend(running_batch)
            if batch is not None:
                return NextBatchPlan(batch_to_run=batch, running_batch=running_batch)
            if blocked:
                # Nothing new until the memory that older families wait for is free.
                return NextBatchPlan(batch_to_run=None, running_batch=running_batch)
        return super().get_new_batch_prefill(running_batch)

    def _next_extend(self, running_batch: ScheduleBatch) -> tuple[ScheduleBatch | None, bool]:
        """One batch of all the extends that fit: headers, conclusions, known text.

        Returns the batch and whether an extend had to wait for room.
        """
        budget = self.chunked_prefill_size or self.max_prefill_tokens
        busy = len(running_batch.reqs)
        room = self._free_tokens() - busy * _HEADROOM
        rows = self.req_to_token_pool.available_size()
        picked: list[MultiverseReq] = []
        blocked = False
        for req in self._pending():
            start = _start(req)
            if req.target <= start:
                raise InvariantError(f"nothing to extend: {req.family.describe()}")
            end = min(req.target, start + budget)
            needs_row = not req.kv.holds_kv
            if budget <= 0:
                break
            headroom = _HEADROOM if busy or picked else 0
            if end - start + headroom > room or (needs_row and rows == 0):
                blocked = True
                break
            if self.enable_lora and not self.can_schedule_lora_req(
                req, {r.lora_id for r in (*running_batch.reqs, *picked)}
            ):
                continue
            picked.append(req)
            budget -= end - start
            room -= end - start + headroom
            rows -= needs_row
            if needs_row:
                kv.borrow_row(self.req_to_token_pool, req.parent, req)
            req.prefix_len = req.already_computed = start
            req.extend_end = end
            req.refresh_fill_ids()
            req.set_discards(end)
            if req.return_logprob:
                req.logprob_start_len = max(req.logprob_start_len, req.seqlen)
        if not picked:
            return None, blocked
        batch = ScheduleBatch.init_new(
            picked,
            self.req_to_token_pool,
            self.token_to_kv_pool_allocator,
            self.tree_cache,
            self.model_config,
            self.enable_overlap,
            self.spec_algorithm,
        )
        batch.prepare_for_extend()
        return batch, blocked

    def _pending(self) -> list[MultiverseReq]:
        """Sequences that want an extend, oldest family first, in outline order, in waves."""
        pending: list[MultiverseReq] = []
        for family in sorted(self.families.values(), key=lambda f: f.arrival):
            width = family.options.max_parallel_branches
            for parent in family.members():
                if parent.stage is Stage.EXTEND and parent.kv.holds_kv:
                    pending.append(parent)
                if parent.stage is not Stage.PARKED or not parent.kv.holds_kv:
                    continue
                at_work = sum(
                    child.kv.holds_kv and child.stage is not Stage.CLOSED
                    for child in parent.children
                )
                waiting = [
                    child
                    for child in parent.children
                    if child.stage is Stage.EXTEND and not child.kv.holds_kv
                ]
                pending.extend(waiting[: max(width - at_work, 0)])
        return pending

    def _free_tokens(self) -> int:
        return int(
            self.token_to_kv_pool_allocator.available_size() + self.tree_cache.evictable_size()
        )

    # --- pressure ----------------------------------------------------------------

    def update_running_batch(self, batch: ScheduleBatch) -> ScheduleBatch | None:
        """Before SGLang retracts by length, make room by family, youngest first."""
        if self.families:
            while not batch.check_decode_mem():
                if not self._make_room(batch):
                    break
                _leave(batch)
                batch.batch_is_full = False
                if batch.is_empty():
                    return batch
        return super().update_running_batch(batch)

    def _make_room(self, batch: ScheduleBatch) -> bool:
        """Retract the youngest family; within the last one, its youngest branch."""
        holders = {req.family.trunk.rid: req.family for req in batch.reqs}
        holders.update(
            (rid, family)
            for rid, family in self.families.items()
            if any(m.kv.holds_kv for m in family.members())
        )
        youngest = max(holders.values(), key=lambda family: family.arrival)
        if len(holders) > 1:
            self._retract(youngest)
            return True
        rows = [req for req in batch.reqs if req.is_branch and req.stage is Stage.DECODE]
        if len(rows) < 2:
            return False
        youngest.retract_one(rows[-1])
        self._count_retraction()
        logger.info("KV pool is full: branch %s waits", rows[-1].rid)
        return True

    def _break_jam(self) -> None:
        """Nothing runs and families wait: the youngest gives its rows back.

        One that cannot run even alone is failed, and so is one that waits for
        nothing, which would be a bug; neither may hang.
        """
        pending = self._pending()
        if not pending:
            if not self.waiting_queue and self.chunked_req is None:
                for family in list(self.families.values()):
                    self._fail(family, InvariantError(f"stuck: {family.describe()}"))
            return
        holders = [f for f in self.families.values() if any(m.kv.holds_kv for m in f.members())]
        if len(holders) > 1:
            self._retract(max(holders, key=lambda family: family.arrival))
        elif self._free_tokens() < pending[0].target - _start(pending[0]):
            self._finish(
                pending[0].family,
                FINISH_ABORT(
                    "The KV pool cannot hold this request, even one branch at a time.",
                    HTTPStatus.INTERNAL_SERVER_ERROR,
                ),
            )

    def _fail(self, family: Family, error: Exception) -> None:
        """An error of ours in one family ends that family, with a 500, and no other."""
        logger.error("Request %s failed", family.trunk.rid, exc_info=error)
        self._finish(
            family,
            FINISH_ABORT(f"Internal error: {error}", HTTPStatus.INTERNAL_SERVER_ERROR),
        )

    def _retract(self, family: Family) -> None:
        logger.info("KV pool is full: request %s is retracted whole", family.trunk.rid)
        family.retract()
        self._count_retraction()
        super()._add_request_to_queue(family.trunk, is_retracted=True)
        self.waiting_queue.sort(key=_arrival)

    def _count_retraction(self) -> None:
        if self.metrics is not None:
            self.metrics.add("retractions", 1)

    # --- a step is done ------------------------------------------------------------

    def run_batch(self, batch: ScheduleBatch, *args: Any, **kwargs: Any) -> Any:
        if self.vocabulary is None or batch.sampling_info is None:
            return super().run_batch(batch, *args, **kwargs)
        dress(batch)
        try:
            return super().run_batch(batch, *args, **kwargs)
        finally:
            undress(batch)

    def process_batch_result(self, batch: ScheduleBatch, result: Any) -> None:
        super().process_batch_result(batch, result)
        if self.vocabulary is None:
            return
        self._account(batch)
        touched: dict[str, Family] = {}
        for req in batch.reqs:
            req.settle_logprobs()
            touched[req.family.trunk.rid] = req.family
            if req.replaced and req.kv.holds_kv:
                # The next decode step must read the token that was put in.
                self.future_map.output_tokens_buf[req.kv.req_pool_idx] = req.output_ids[-1]
        in_batch = {id(req) for req in batch.reqs}
        for family in touched.values():
            try:
                self._settle(family, [req for req in batch.reqs if req.family is family])
            except Exception as error:  # an error of ours must not take the others down
                self._fail(family, error)
                continue
            if not family.trunk.finished() and id(family.trunk) not in in_batch:
                trunk = family.trunk
                self.output_streamer.stream_output([trunk], trunk.return_logprob)

    def _settle(self, family: Family, stepped: list[MultiverseReq]) -> None:
        """Let a family act on the step that its sequences `stepped` were part of."""
        trunk = family.trunk
        if trunk.finished():
            self._forget(family)
            return
        if family.error is not None:
            raise family.error
        for req in stepped:
            family.settle(req)
        family.flush()
        if family.ending is None:
            family.join_ready()
        if family.ending is not None:
            self._finish(family, family.ending)
        elif family.forked or trunk.stage is Stage.EXTEND:
            self.families[trunk.rid] = family
        elif trunk.stage is Stage.DECODE:
            self.families.pop(trunk.rid, None)

    def _account(self, batch: ScheduleBatch) -> None:
        if batch.forward_mode.is_extend():
            for req, length in zip(batch.reqs, batch.extend_lens, strict=True):
                req.family.prefilled += length
            return
        counts: dict[str, int] = {}
        for req in batch.reqs:
            if req.is_branch:
                rid = req.family.trunk.rid
                counts[rid] = counts.get(rid, 0) + 1
                req.family.max_concurrent = max(req.family.max_concurrent, counts[rid])

    def _finish(self, family: Family, reason: Any) -> None:
        """End a family at once and tell the client."""
        family.finish(reason)
        self._forget(family)
        self.output_streamer.stream_output([family.trunk], family.trunk.return_logprob)

    def _forget(self, family: Family) -> None:
        self.families.pop(family.trunk.rid, None)
        if self.metrics is not None:
            self.metrics.family_ended(family)

    # --- aborts ----------------------------------------------------------------------

    def abort_request(self, recv_req: Any) -> None:
        for family in list(self.families.values()):
            named = recv_req.abort_all or any(
                member.rid.startswith(recv_req.rid) for member in family.members()
            )
            trunk = family.trunk
            if named and trunk.stage is not Stage.QUEUED and not _decoding(trunk):
                timed_out = recv_req.abort_message is not None
                status = HTTPStatus.SERVICE_UNAVAILABLE if timed_out else None
                self._finish(family, FINISH_ABORT(recv_req.abort_message, status))
        super().abort_request(recv_req)

    def _release_aborted_request(self, req: Req) -> None:
        self.families.pop(req.rid, None)
        super()._release_aborted_request(req)

    def send_abort_output(self, abort_req: Any, req: Req) -> None:
        if isinstance(req, MultiverseReq) and req.is_branch:
            # SGLang gave up on a branch (out of memory): its answer ends with it.
            if not req.family.trunk.finished():
                reason = req.to_finish or FINISH_ABORT("Aborted")
                self._finish(req.family, reason)
            return
        super().send_abort_output(abort_req, req)

    def pause_generation(self, recv_req: Any) -> None:
        if recv_req.mode == "retract" and self.families:
            # Weights may change before we go on: no KV of a family may stay.
            for family in list(self.families.values()):
                self._retract(family)
            for batch in (self.running_batch, self.last_batch):
                if batch is not None:
                    _leave(batch)
        super().pause_generation(recv_req)

    def is_fully_idle(self, *args: Any, ignore_waiting: bool = False, **kwargs: Any) -> bool:
        """With `ignore_waiting` a family that holds no KV only waits, like a queued request."""
        busy = bool(self._held_rows()) if ignore_waiting else bool(self.families)
        idle = super().is_fully_idle(*args, ignore_waiting=ignore_waiting, **kwargs)
        return not busy and bool(idle)


def _may_fork(recv_req: Any, req: Req) -> bool:
    """Whether a request can fork; others get their block tags masked.

    A grammar constrains the linear text, sessions and embeddings own KV that ids
    do not determine, and captured per-token tensors follow one row.
    """
    params = req.sampling_params
    return not (
        params.json_schema
        or params.regex
        or params.ebnf
        or params.structural_tag
        or req.session is not None
        or recv_req.session_id is not None
        or req.input_embeds is not None
        or req.positional_embed_overrides is not None
        or recv_req.mm_inputs is not None
        or req.return_hidden_states
        or req.return_routed_experts
        or req.return_indexer_topk
        or req.return_sampling_mask
    )


def _start(req: MultiverseReq) -> int:
    """Where an extend of `req` starts: after its row, or after the prefix it will borrow."""
    return req.row_len if req.parent is None or req.kv.holds_kv else req.parent.row_len


def _decoding(req: MultiverseReq) -> bool:
    return req.stage in (Stage.DECODE, Stage.DRAIN)


def _arrival(req: Req) -> int:
    return req.family.arrival if isinstance(req, MultiverseReq) else 0


def _leave(batch: ScheduleBatch) -> bool:
    """Take out the rows that do not decode: parked, closed, retracted, waiting for an extend."""
    leaving = [
        req
        for req in batch.reqs
        if isinstance(req, MultiverseReq) and not req.finished() and not _decoding(req)
    ]
    if leaving:
        batch.filter_batch(reqs_to_exclude=leaving)
    return bool(leaving)
