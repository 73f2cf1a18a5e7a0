"""SGLang's scheduler with families; what to do is said in the modules it calls."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from sglang.srt.environ import envs
from sglang.srt.managers.schedule_batch import FINISH_ABORT, NextBatchPlan, Req, ScheduleBatch
from sglang.srt.managers.scheduler import Scheduler
from sglang.srt.runtime_context import get_serving

from ..structure import MissingTagsError
from . import inflight, kv, step
from .adapters import has_adapter, held_adapters, is_continued
from .admission import found_family, is_beam_search, keep_apart
from .extends import Extends
from .family import Family
from .known import requeue
from .metrics import Metrics
from .options import MultiverseArgs
from .pressure import Pressure
from .req import MultiverseReq
from .sampling import dress, dress_forward, undress
from .stage import DECODING, Stage
from .streamer import MultiverseOutputStreamer
from .upstream import check_hooks, refuse_unsupported
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class MultiverseScheduler(Scheduler):
    """Replaces SGLang's `Scheduler`; for a model without the tags it only passes calls on.

    Attributes:
        vocabulary: `None` for a model that does not speak the dialect.
        families: the requests that have forked, by rid.
        leaving: rows of the batches may have stopped decoding since `_leave`.
    """

    vocabulary: Vocabulary | None = None
    metrics: Metrics | None = None
    families: dict[str, Family]
    leaving = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_hooks()
        self.families = {}
        self.extends = Extends(self)
        self.pressure = Pressure(self)
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
            # The guard and the draws of a step need the tokens of the step before.
            envs.SGLANG_ENABLE_DELAY_SAMPLE.set(True)

    def get_init_info(self) -> dict[str, Any]:
        info = super().get_init_info()
        info["multiverse"] = self.vocabulary is not None
        return info

    def get_output_streamer_class(self) -> Any:
        if self.vocabulary is None:
            return super().get_output_streamer_class()
        return MultiverseOutputStreamer

    def _held_rows(self) -> dict[str, Any]:
        """KV records of families, which may be in no batch, for SGLang's pool check."""
        return {
            member.rid: kv.held_record(member)
            for family in self.families.values()
            for member in family.members()
            if member.holds_slots
        }

    # --- requests come in --------------------------------------------------------

    def _create_generation_req(self, recv_req: Any, *args: Any, **kwargs: Any) -> Req:
        if self.vocabulary is None:
            return super()._create_generation_req(recv_req, *args, **kwargs)
        if is_beam_search(recv_req):
            return keep_apart(super()._create_generation_req(recv_req, *args, **kwargs))
        req = MultiverseReq(*args, **kwargs)
        if get_serving().allow_auto_truncate:  # SGLang's own cut comes after the prompt is read
            del req.origin_input_ids[self.max_req_input_len :]
        try:
            self._found_family(req, recv_req, self.vocabulary)
        except Exception as error:  # of ours: it ends this request, and no other
            logger.exception("Request %s failed", req.rid)
            plain = keep_apart(super()._create_generation_req(recv_req, *args, **kwargs))
            plain.set_finish_with_abort(
                f"Internal error: {error}",
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "InternalServerError",
            )
            return plain
        return req

    def _found_family(self, req: MultiverseReq, recv_req: Any, vocabulary: Vocabulary) -> None:
        found_family(
            req,
            recv_req,
            self.options,
            vocabulary,
            self.req_to_token_pool,
            self.tree_cache,
        )

    def _add_request_to_queue(self, req: Req, is_retracted: bool = False) -> None:
        if not isinstance(req, MultiverseReq):
            super()._add_request_to_queue(req, is_retracted)
            return
        error, req.option_error = req.option_error, None
        if error is not None and not req.finished() and req.to_finish is None:
            req.set_finish_with_abort(error)
        if req.to_finish is not None:
            # SGLang has replaced the prompt by one token; nothing forks any more.
            req.fork_points, req.all_fork_points = [], []
        again = is_retracted or req.retracted_stain
        if again and req.stage is not Stage.QUEUED:
            requeue(req)
        if again and req.is_branch:
            return  # `extends` finds it by its stage
        super()._add_request_to_queue(req, is_retracted)
        if again:
            # What came first goes first again.
            req.time_stats.wait_queue_entry_time = req.queued_at
            self.waiting_queue.sort(key=_arrival)
        else:
            req.queued_at = req.time_stats.wait_queue_entry_time

    def queue_again(self, req: Req) -> None:
        self._add_request_to_queue(req, is_retracted=True)

    # --- what runs next ----------------------------------------------------------

    def get_next_batch_to_run(
        self, running_batch: ScheduleBatch, last_batch: ScheduleBatch | None
    ) -> NextBatchPlan:
        if last_batch is not None and last_batch.forward_mode.is_extend():
            self.leaving = True  # some of what was extended may not decode
        self._leave(running_batch, last_batch)
        plan = super().get_next_batch_to_run(running_batch=running_batch, last_batch=last_batch)
        stuck = plan.batch_to_run is None and plan.running_batch.is_empty()
        if stuck and self.families and not (self.enable_overlap and last_batch):
            self.pressure.break_jam()
        return plan

    def _should_defer_prefill(self, running_batch: ScheduleBatch) -> bool:
        """`--prefill-decode-interval` protects rows that decode; where none does, nobody waits."""
        if self.families and running_batch.is_empty():
            return False
        return bool(super()._should_defer_prefill(running_batch))

    def get_new_batch_prefill(self, running_batch: ScheduleBatch) -> NextBatchPlan:
        """Families first, in their order: their next extend; then SGLang's queue."""
        if not self.families:
            return super().get_new_batch_prefill(running_batch)
        if self.chunked_req is None and self._newcomer_is_first():
            plan = super().get_new_batch_prefill(running_batch)
            if plan.batch_to_run is None and self.pressure.preempt_for(self.waiting_queue[0]):
                self._leave(plan.running_batch)
                plan = super().get_new_batch_prefill(plan.running_batch)
            if plan.batch_to_run is not None:
                return plan
            running_batch = plan.running_batch
        batch, blocked = self.extends.next_batch(running_batch)
        if batch is not None:
            return NextBatchPlan(batch_to_run=batch, running_batch=running_batch)
        if self.chunked_req is not None:
            fits = self.pressure.make_chunk_fit()
            self._leave(running_batch)
            blocked = not fits
        if blocked:
            # Nothing new until the room that earlier families wait for is free.
            return NextBatchPlan(batch_to_run=None, running_batch=running_batch)
        return super().get_new_batch_prefill(running_batch)

    def _newcomer_is_first(self) -> bool:
        """Whether SGLang's queue holds something more urgent than every family that waits."""
        if not self.enable_priority_scheduling or not self.waiting_queue:
            return False
        urgency = self.extends.urgency
        self.waiting_queue.sort(key=lambda req: urgency(req.priority))
        pending = self.extends.pending()
        newcomer = urgency(self.waiting_queue[0].priority)
        return not pending or newcomer < urgency(pending[0].priority)

    def can_schedule_lora_req(self, req: Req, running_loras: set[str | None]) -> bool:
        if is_continued(req, self.families):
            return has_adapter(self, req, running_loras)
        held = held_adapters(self.families)
        return bool(super().can_schedule_lora_req(req, running_loras | held))

    def update_running_batch(self, batch: ScheduleBatch) -> ScheduleBatch | None:
        """Before SGLang retracts by length, make room by family, the last first."""
        if self.families:
            while not batch.check_decode_mem() and self.pressure.make_room(batch):
                self._leave(batch)
                if batch.is_empty():
                    return batch
        return super().update_running_batch(batch)

    def _leave(self, running: ScheduleBatch, last: ScheduleBatch | None = None) -> None:
        """Take out the rows that do not decode: parked, closed, retracted, waiting."""
        if not self.leaving:
            return
        self.leaving = False
        for batch in (running, last):
            if batch is None:
                continue
            rows = [req for req in batch.reqs if isinstance(req, MultiverseReq)]
            leaving = [req for req in rows if not req.decodes]
            if leaving:
                batch.filter_batch(reqs_to_exclude=leaving)
                running.batch_is_full = False
            for req in rows:
                if req.stage is Stage.DRAIN:
                    self.leaving = True  # after one more step
                elif req.decodes and req.stage is not Stage.DECODE:
                    req.become(Stage.DECODE)  # its extend is in flight

    # --- a step is done ------------------------------------------------------------

    def run_batch(self, batch: ScheduleBatch, *args: Any, **kwargs: Any) -> Any:
        if self.vocabulary is None or batch.sampling_info is None:
            return super().run_batch(batch, *args, **kwargs)
        inflight.note_extend(batch)
        if not self.enable_overlap:
            dress(batch.sampling_info, batch)
        try:
            result = super().run_batch(batch, *args, **kwargs)
        finally:
            undress(batch.sampling_info)
        inflight.note_launch(batch, result)
        return result

    def launch_batch_sample_if_needed(self, result: Any, batch: ScheduleBatch) -> Any:
        """With overlap a step is sampled when the one before it has been read."""
        sampled = result is not None and result.delay_sample_func is not None
        if self.vocabulary is not None and sampled:
            dress_forward(batch)
        return super().launch_batch_sample_if_needed(result, batch)

    def _relay_forward_payload(
        self, batch: ScheduleBatch, future_indices: torch.Tensor, result: Any
    ) -> None:
        super()._relay_forward_payload(batch, future_indices, result)
        if self.vocabulary is None:
            return
        put_in = inflight.replacement(batch.reqs, batch.device)
        if put_in is not None:
            # What the next decode step reads.
            rows = future_indices[: len(batch.reqs)]
            tokens = result.next_token_ids[: len(batch.reqs)]
            self.future_map.output_tokens_buf[rows] = put_in(tokens)

    def process_batch_result(self, batch: ScheduleBatch, result: Any) -> None:
        if self.vocabulary is None or not inflight.is_noted(result):
            super().process_batch_result(batch, result)
            return
        wanted, stale = inflight.arrived(batch, result)
        with inflight.passed_over(stale):
            super().process_batch_result(batch, result)
        stepped: dict[Family, list[MultiverseReq]] = {}
        extended = batch.forward_mode.is_extend()
        for req in wanted:
            if extended:
                req.extending -= 1
                req.family.restless = True
            if req.news:
                req.settle_logprobs()
                stepped.setdefault(req.family, []).append(req)
        self._account(batch, stepped)
        in_batch = {id(req) for req in batch.reqs}
        grown: list[MultiverseReq] = []
        for family, reqs in stepped.items():
            try:
                self._settle(family, reqs)
            except Exception as error:  # an error of ours must not take the others down
                self.fail(family, error)
                continue
            self.leaving |= any(req.stage is not Stage.DECODE for req in reqs)
            if not family.trunk.finished() and id(family.trunk) not in in_batch:
                grown.append(family.trunk)
        if grown:
            self.output_streamer.stream_output(grown, any(t.return_logprob for t in grown))

    def _settle(self, family: Family, stepped: list[MultiverseReq]) -> None:
        """Let a family act on the step that its sequences `stepped` were part of."""
        trunk = family.trunk
        if trunk.finished():
            self._forget(family)
            return
        if family.error is not None:
            raise family.error
        step.settle(family, stepped)
        if family.ending is not None:
            self.finish(family, family.ending)
        elif family.forked or trunk.stage is Stage.EXTEND:
            self.families[trunk.rid] = family
        elif trunk.stage is Stage.DECODE:
            self.families.pop(trunk.rid, None)

    def _account(self, batch: ScheduleBatch, stepped: dict[Family, list[MultiverseReq]]) -> None:
        if batch.forward_mode.is_extend():
            for req, length in zip(batch.reqs, batch.extend_lens, strict=True):
                if isinstance(req, MultiverseReq):
                    req.family.prefilled += length
            return
        for family, reqs in stepped.items():
            branches = sum(req.is_branch for req in reqs)
            family.max_concurrent = max(family.max_concurrent, branches)

    def finish(self, family: Family, reason: Any) -> None:
        """End a family at once and tell the client."""
        family.finish(reason)
        self.leaving = True
        self._forget(family)
        self.output_streamer.stream_output([family.trunk], family.trunk.return_logprob)

    def fail(self, family: Family, error: Exception) -> None:
        """An error of ours in one family ends that family, with a 500, and no other."""
        logger.error("Request %s failed", family.trunk.rid, exc_info=error)
        self.finish(
            family,
            FINISH_ABORT(f"Internal error: {error}", HTTPStatus.INTERNAL_SERVER_ERROR),
        )

    def _forget(self, family: Family) -> None:
        self.families.pop(family.trunk.rid, None)
        if self.metrics is not None:
            self.metrics.family_ended(family)

    # --- aborts and pauses -------------------------------------------------------------

    def abort_request(self, recv_req: Any) -> None:
        for family in list(self.families.values()):
            named = recv_req.abort_all or any(
                member.rid.startswith(recv_req.rid) for member in family.members()
            )
            stage = family.trunk.stage
            if named and stage is not Stage.QUEUED and stage not in DECODING:
                timed_out = recv_req.abort_message is not None
                status = HTTPStatus.SERVICE_UNAVAILABLE if timed_out else None
                self.finish(family, FINISH_ABORT(recv_req.abort_message, status))
        super().abort_request(recv_req)

    def _release_aborted_request(self, req: Req) -> None:
        self.families.pop(req.rid, None)
        super()._release_aborted_request(req)

    def send_abort_output(self, abort_req: Any, req: Req) -> None:
        if isinstance(req, MultiverseReq) and req.is_branch:
            # SGLang gave up on a branch (out of memory): its answer ends with it.
            if not req.family.trunk.finished():
                reason = req.to_finish or FINISH_ABORT("Aborted")
                self.finish(req.family, reason)
            return
        super().send_abort_output(abort_req, req)

    def pause_generation(self, recv_req: Any) -> None:
        if recv_req.mode == "retract":
            # Weights may change before we go on: no KV of a family may stay.
            for family in list(self.families.values()):
                self.pressure.retract(family)
            self._leave(self.running_batch, self.last_batch)
        super().pause_generation(recv_req)
        if recv_req.mode == "retract":
            # A step in flight was read in between.
            for family in list(self.families.values()):
                self.pressure.retract(family)

    def is_fully_idle(self, *args: Any, ignore_waiting: bool = False, **kwargs: Any) -> bool:
        """With `ignore_waiting` a family that holds no KV only waits, like a queued request."""
        busy = bool(self._held_rows()) if ignore_waiting else bool(self.families)
        idle = super().is_fully_idle(*args, ignore_waiting=ignore_waiting, **kwargs)
        return not busy and bool(idle)


def _arrival(req: Req) -> int:
    return req.family.arrival if isinstance(req, MultiverseReq) else 0
