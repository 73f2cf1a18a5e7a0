"""The real scheduler class, with what it talks to replaced, and the way to make one."""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import tempfile
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from .worker import Model, Recorder, Worker

if TYPE_CHECKING:
    from sglang.srt.managers.scheduler import Scheduler

TINY = Path(__file__).parent.parent / "models" / "tiny-multiverse"
_RIDS = itertools.count()
# Not its page check, which takes half the time and says less than `owners`.
_CHECKS = (
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_BUSY",
    "SGLANG_ENABLE_STRICT_MEM_CHECK_DURING_IDLE",
)


class Answer:
    """What was sent of one request.

    Attributes:
        ids: the tokens so far, in linear order.
        finish: the reason, as sent, once it ended.
        info: the answer's `multiverse` metadata and whatever else came with the end.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.finish: dict[str, Any] | None = None
        self.messages = 0


@functools.cache
def _hooked() -> type[Scheduler]:
    """SGLang's scheduler class as the plugin leaves it."""
    from sglang.srt.managers import scheduler
    from sglang.srt.plugins import load_plugins
    from sglang.srt.plugins.hook_registry import HookRegistry

    from sglang_multiverse.engine import upstream

    load_plugins()
    # This process may have loaded its plugins before it was a scheduler's.
    upstream.register(
        hook for hook in upstream.scheduler_hooks() if hook.target not in HookRegistry._patched
    )
    HookRegistry.apply_hooks()
    return scheduler.Scheduler


@functools.cache
def _config(flags: tuple[str, ...]) -> Any:
    from sglang.srt.server_args import prepare_server_args

    arguments = ["--model-path", str(TINY), "--dtype", "float32", "--device", "cpu", *flags]
    return prepare_server_args(arguments)


_parallel_once = False


def _init_parallel_once(original: Callable[..., None], **kwargs: Any) -> None:
    """Process groups outlive a scheduler; a second one shares them."""
    global _parallel_once
    if not _parallel_once:
        original(**kwargs)
        _parallel_once = True


class Modelless:
    """Mixed into the scheduler class: one iteration of its own event loop per `step`."""

    def __init__(self, args: Any, model: Model, slots: int, rows: int, sees: bool) -> None:
        self._sizes = (model, slots, rows)
        self._sees = sees
        self._results: Any = None
        self.inbox: deque[Any] = deque()
        self.sent = Recorder()
        self.answers: dict[str, Answer] = {}
        self.replies: list[Any] = []  # to other messages than requests
        super().__init__(args, SimpleNamespace(nccl_port=0))
        self.schedule_stream.synchronize = lambda: None
        self._war_barrier_enabled = False

    # --- what is faked -----------------------------------------------------

    def init_ipc_channels(self, port_args: Any) -> None:
        from sglang.srt.managers.scheduler_components.ipc_channels import SchedulerIpcChannels

        self.ipc_channels = SchedulerIpcChannels(
            recv_from_tokenizer=Recorder(),
            recv_from_rpc=Recorder(),
            send_to_tokenizer=self.sent,
            send_to_detokenizer=self.sent,
            send_metrics_from_scheduler=None,
        )
        self.recv_from_tokenizer = self.ipc_channels.recv_from_tokenizer
        self.load_snapshot_writer = None

    def init_model_worker(self) -> None:
        from sglang.srt.runtime_context import get_context, get_parallel, get_schedule

        model, slots, rows = self._sizes
        self.draft_worker = self.external_corpus_manager = None
        self.tp_worker = self.model_worker = Worker(self, model, slots, rows, sees=self._sees)
        self.kv_cache_allocation_time = 0.0
        self.schedule_stream = self.forward_stream = self.tp_worker.model_runner.forward_stream
        self.max_total_num_tokens = slots
        self.max_prefill_tokens = get_schedule().max_prefill_tokens
        self.max_running_requests = rows
        self.max_queued_requests = get_schedule().max_queued_requests
        self.max_req_len = min(self.model_config.context_len, slots) - 1
        self.max_req_input_len = self.max_req_len - 5
        self.random_seed, self.device = 0, "cpu"
        self.min_free_slots_delayer = None
        get_context().override("modelless", pp_max_micro_batch_size=max(rows, 1))
        parallel = get_parallel()
        for name in ("tp", "attn_tp", "attn_cp"):
            group = getattr(parallel, f"{name}_group")
            setattr(self, f"{name}_group", group)
            setattr(self, f"{name}_cpu_group", group.cpu_group)
        self.pp_group, self.world_group = parallel.pp_group, parallel.world_group
        from sglang.srt.layers.dp_attention import get_dp_tp_group

        self.dp_tp_group = get_dp_tp_group()
        self.dp_tp_cpu_group = self.dp_tp_group.cpu_group
        self.pad_input_ids_func = None
        self.startup_available_gpu_memory_gb = 0.0

    def maybe_sleep_on_idle(self) -> None:
        pass  # there is no socket whose message could wake it

    def init_soft_watchdog(self) -> None:
        self.soft_watchdog = None

    def init_watch_dog_memory_saver_input_blocker(self) -> None:
        with patch("sglang.srt.managers.scheduler.create_scheduler_watchdog"):
            super().init_watch_dog_memory_saver_input_blocker()

    def init_startup_timing_summary(self) -> None:
        pass

    # --- stepping ------------------------------------------------------------

    @property
    def result_queue(self) -> Any:
        return self._results

    @result_queue.setter
    def result_queue(self, queue: Any) -> None:
        # The overlap loop starts with an empty one; here it is entered once a step.
        if not self._results:
            self._results = queue

    def ingest_requests(self, stop_at_pause: bool = False) -> list[Any]:
        self.gracefully_exit = True  # the loop ends after this iteration
        self._deferred_input_requests.extend(self.inbox)
        self.inbox.clear()
        found: list[Any] = super().ingest_requests(stop_at_pause)
        return found

    def step(self) -> None:
        """One iteration of the event loop that the flags ask for, and SGLang's leak checks."""
        from sglang.srt.environ import envs

        self.gracefully_exit = False
        loop = self.event_loop_overlap if self.enable_overlap else self.event_loop_normal
        with ExitStack() as checks:
            # A flush collects garbage, which goes through all that was ever imported.
            checks.enter_context(patch.object(gc, "collect", lambda *_: 0))
            for check in _CHECKS if self.strict else ():
                checks.enter_context(getattr(envs, check).override(1))
            loop()
        self._collect()

    def _collect(self) -> None:
        for message in self.sent.sent:
            rids = getattr(message, "rids", None)
            if rids is None:
                if hasattr(message, "finished_reason"):
                    reason = message.finished_reason or {"type": "abort"}
                    self.answers[message.rid].finish = reason
                else:
                    self.replies.append(message)
                continue
            for i, rid in enumerate(rids):
                answer = self.answers[rid]
                if answer.finish is not None:
                    raise AssertionError(f"{rid} was sent more after its end")
                answer.messages += 1
                if message.output_ids is not None:
                    answer.ids.extend(message.output_ids[i])
                answer.finish = message.finished_reasons[i]
        self.sent.sent.clear()

    # --- requests ---------------------------------------------------------------

    def send(self, message: Any) -> None:
        """Queue any message of SGLang's for the next step."""
        self.inbox.append(message)

    def ask(
        self,
        ids: Sequence[int],
        *,
        rid: str | None = None,
        stream: bool = False,
        priority: int | None = None,
        multiverse: dict[str, Any] | None = None,
        **params: Any,
    ) -> str:
        """Queue a generate request, greedy unless said; returns its rid."""
        from sglang.srt.managers.io_struct import TokenizedGenerateReqInput
        from sglang.srt.observability.req_time_stats import APIServerReqTimeStats
        from sglang.srt.sampling.sampling_params import SamplingParams

        rid = rid or f"q{next(_RIDS)}"
        if multiverse is not None:
            params["custom_params"] = {"multiverse": multiverse}
        sampling = SamplingParams(**{"temperature": 0.0, "max_new_tokens": 64, **params})
        sampling.normalize(self.tokenizer)
        sampling.verify(self.model_config.vocab_size)
        self.answers[rid] = Answer()
        self.send(
            TokenizedGenerateReqInput(
                rid=rid,
                input_text="",
                input_ids=array("q", ids),
                input_embeds=None,
                mm_inputs=None,
                token_type_ids=None,
                sampling_params=sampling,
                return_logprob=False,
                logprob_start_len=-1,
                top_logprobs_num=0,
                token_ids_logprob=None,
                stream=stream,
                priority=priority,
                time_stats=APIServerReqTimeStats(),
            )
        )
        return rid

    @property
    def open(self) -> list[str]:
        """The rids that have not ended, oldest first."""
        return [rid for rid, answer in self.answers.items() if answer.finish is None]

    def drain(self, most: int) -> None:
        """Step until the server is idle. Raises `AssertionError` after `most` steps."""
        for _ in range(most):
            if not self.open and self.is_fully_idle():
                return
            self.step()
        raise AssertionError(f"{self.open or 'something'} still runs after {most} steps")

    def check_drained(self) -> None:
        """Raise `AssertionError` unless every slot and row is free, or cached and evictable."""
        _, slots, rows = self._sizes
        cached, pool = self.tree_cache.evictable_size(), self.token_to_kv_pool_allocator
        assert self.tree_cache.protected_size() == 0
        assert pool.available_size() + cached == slots
        assert sorted(self.req_to_token_pool.free_slots) == list(range(1, rows + 1))


@functools.cache
def _class() -> type[Any]:
    return type("ModellessScheduler", (Modelless, _hooked()), {})


def scheduler(
    model: Model,
    *flags: str,
    slots: int = 4096,
    rows: int = 64,
    overlap: bool = False,
    sees: bool = False,
    strict: bool = True,
    **multiverse: Any,
) -> Any:
    """A fresh scheduler; it takes the place of the one before.

    Args:
        flags: SGLang's.
        slots: tokens of the KV pool.
        rows: of `req_to_token`, which is how many sequences hold KV at once.
        overlap: run the overlap event loop, which the CPU platform switches off.
        sees: the attention backend can be told what is hidden and what is shared.
        strict: check the pool for leaks after every step.
        multiverse: fields of `MultiverseArgs`.
    """
    from sglang.srt.distributed import bootstrap
    from sglang.srt.environ import envs
    from sglang.srt.runtime_context import SpawnRanks, get_context, publish

    from sglang_multiverse.engine.options import MultiverseArgs

    cls = _class()
    args = _config(flags)
    logging.getLogger("sglang").setLevel(logging.ERROR)
    logging.getLogger("sglang_multiverse").setLevel(logging.ERROR)
    publish(args, role="scheduler", ranks=SpawnRanks(world_rank=0, dp_rank=None, gpu_id=0))
    get_context().override("modelless", disable_overlap_schedule=not overlap)
    group = "file://" + tempfile.mktemp(prefix="modelless-")
    with (
        # Not in the environment: servers that start in the background would read it, too.
        patch.object(MultiverseArgs, "from_env", lambda: MultiverseArgs(**multiverse)),
        envs.SGLANG_DISTRIBUTED_INIT_METHOD_OVERRIDE.override(group),
        patch.object(
            bootstrap,
            "init_parallel_runtime",
            functools.partial(_init_parallel_once, bootstrap.init_parallel_runtime),
        ),
    ):
        made = cls(args, model, slots, rows, sees)
    made.strict = strict
    return made
