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
from . import inflight, visibility
from .adapters import has_adapter, held_adapters, is_continued
from .admission import arrival, failed, found_family, is_beam_search, keep_apart, refuse_if_wrong
from .extends import Extends
from .family import Family
from .inflight import keep_decoding
from .known import requeue
from .kv import Memory, copy_moved
from .metrics import Metrics
from .options import MultiverseArgs
from .pressure import Pressure
from .req import MultiverseReq
from .requirements import refuse_unsupported
from .results import Results
from .sampling import dress, dress_forward, undress
from .script import Player
from .stage import DECODING, Stage
from .streamer import MultiverseOutputStreamer
from .upstream import check_hooks, scheduling_hooks
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
    memory: Memory
    leaving = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_hooks(scheduling_hooks())
        self.families = {}
        self.extends = Extends(self)
        self.pressure = Pressure(self)
        self.results = Results(self)
        super().__init__(*args, **kwargs)
        self.player = Player.of(self)
        if self.vocabulary is not None:
            refuse_unsupported(self)
            self.memory = Memory(self.req_to_token_pool, self.tree_cache)
            self.tree_cache.multiverse_rows = self._held_records
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
        # A move may overlap itself, which SGLang's kernel is not made for.
        envs.SGLANG_NATIVE_MOVE_KV_CACHE.set(True)
        if self.enable_overlap:
            # The guard and the draws of a step need the tokens of the step before.
            envs.SGLANG_ENABLE_DELAY_SAMPLE.set(True)

    def get_init_info(self) -> dict[str, Any]:
        info = super().get_init_info()
        info["multiverse"] = self.vocabulary is not None
        return info

    def get_output_streamer_class(self) -> Any:
        found = super().get_output_streamer_class()
        return found if self.vocabulary is None else MultiverseOutputStreamer

    def _held_records(self) -> dict[str, Any]:
        return self.memory.held_records(self.families.values())

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
            found_family(
                req,
                recv_req,
                self.options,
                self.vocabulary,
                self.memory,
                hides=visibility.hides(self.tp_worker.model_runner),
            )
        except Exception as error:  # of ours: it ends this request, and no other
            return failed(super()._create_generation_req(recv_req, *args, **kwargs), error)
        return req

    def _add_request_to_queue(self, req: Req, is_retracted: bool = False) -> None:
        if self.player is not None:
            self.player.give(req)
        if not isinstance(req, MultiverseReq):
            super()._add_request_to_queue(req, is_retracted)
            return
        refuse_if_wrong(req)
        again = is_retracted or req.retracted_stain
        if again and req.stage is not Stage.QUEUED:
            requeue(req)
        if again and req.is_branch:
            return  # `extends` finds it by its stage
        super()._add_request_to_queue(req, is_retracted)
        if again:
            # What came first goes first again.
            req.time_stats.wait_queue_entry_time = req.queued_at
            self.waiting_queue.sort(key=arrival)
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
        if self.chunked_req is None and self.extends.newcomer_is_first():
            plan = super().get_new_batch_prefill(running_batch)
            if plan.batch_to_run is None and self.pressure.preempt_for(self.waiting_queue[0]):
                self._leave(plan.running_batch)
                plan = super().get_new_batch_prefill(plan.running_batch)
            if plan.batch_to_run is not None:
                return plan
            running_batch = plan.running_batch
        batch, blocked = self.extends.next_batch(running_batch)
        if batch is not None:
            running_batch = self.extends.mix(batch, running_batch)
            return NextBatchPlan(batch_to_run=batch, running_batch=running_batch)
        if self.chunked_req is not None:
            fits = self.pressure.make_chunk_fit()
            self._leave(running_batch)
            blocked = not fits
        if blocked:
            # Nothing new until the room that earlier families wait for is free.
            return NextBatchPlan(batch_to_run=None, running_batch=running_batch)
        return super().get_new_batch_prefill(running_batch)

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
        self.leaving = keep_decoding(running, last)

    # --- a step is done ------------------------------------------------------------

    def run_batch(self, batch: ScheduleBatch, *args: Any, **kwargs: Any) -> Any:
        if self.player is not None and batch.sampling_info is not None:
            self.player.prompt(batch)
        if self.vocabulary is None or batch.sampling_info is None:
            return super().run_batch(batch, *args, **kwargs)
        inflight.note_extend(batch)
        copy_moved(self)
        if not self.enable_overlap:
            dress(batch.sampling_info, batch)
        try:
            result = super().run_batch(batch, *args, **kwargs)
        finally:
            undress(batch.sampling_info)
        inflight.note_launch(batch, result)
        return result

    def launch_batch_sample_if_needed(self, batch_result: Any, cur_batch: ScheduleBatch) -> Any:
        """With overlap a step is sampled when the one before it has been read."""
        sampled = batch_result is not None and batch_result.delay_sample_func is not None
        if self.vocabulary is not None and sampled:
            dress_forward(cur_batch)
        return super().launch_batch_sample_if_needed(batch_result, cur_batch)

    def _relay_forward_payload(
        self, batch: ScheduleBatch, future_indices: torch.Tensor, batch_result: Any
    ) -> None:
        super()._relay_forward_payload(batch, future_indices, batch_result)
        put_in = inflight.replacement(batch) if self.vocabulary is not None else None
        if put_in is not None:
            # What the next decode step reads, on rows of branches only: a beam's are SGLang's.
            tokens = put_in(batch_result.next_token_ids[put_in.rows])
            self.future_map.output_tokens_buf[future_indices[put_in.rows]] = tokens

    def process_batch_result(self, batch: ScheduleBatch, result: Any) -> None:
        if self.vocabulary is None or not inflight.is_noted(result):
            super().process_batch_result(batch, result)
            return
        wanted, stale = inflight.arrived(batch, result)
        with inflight.passed_over(stale):
            super().process_batch_result(batch, result)
        self.results.take(batch, wanted)

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
                self.results.finish(family, FINISH_ABORT(recv_req.abort_message, status))
        super().abort_request(recv_req)

    def _release_aborted_request(self, req: Req) -> None:
        self.results.forget(req.rid)
        super()._release_aborted_request(req)

    def send_abort_output(self, abort_req: Any, req: Req) -> None:
        if isinstance(req, MultiverseReq) and req.is_branch:
            # SGLang gave up on a branch (out of memory): its answer ends with it.
            if not req.family.trunk.finished():
                reason = req.to_finish or FINISH_ABORT("Aborted")
                self.results.finish(req.family, reason)
            return
        super().send_abort_output(abort_req, req)

    def pause_generation(self, recv_req: Any) -> None:
        retracts = recv_req.mode == "retract"
        if retracts:
            # Weights may change before we go on: no KV of a family may stay.
            self.pressure.retract_all()
            self._leave(self.running_batch, self.last_batch)
        super().pause_generation(recv_req)
        if retracts:
            self.pressure.retract_all()  # a step in flight was read in between

    def is_fully_idle(self, *args: Any, ignore_waiting: bool = False, **kwargs: Any) -> bool:
        """With `ignore_waiting` a family that holds no KV only waits, like a queued request."""
        busy = bool(self._held_records()) if ignore_waiting else bool(self.families)
        idle = super().is_fully_idle(*args, ignore_waiting=ignore_waiting, **kwargs)
        return not busy and bool(idle)
