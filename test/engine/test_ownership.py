"""Every KV slot has one owner, whatever families do to each other (DESIGN.md §4).

SGLang's own row pool, slot allocator, radix tree and leak check run here, and
our families and their bookkeeping in the scheduler, without a model: hypothesis
chooses the tokens, and what happens next.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sglang.srt.disaggregation.utils import DisaggregationMode
from sglang.srt.environ import envs
from sglang.srt.managers.schedule_batch import FINISH_ABORT
from sglang.srt.managers.scheduler_components.invariant_checker import SchedulerInvariantChecker
from sglang.srt.managers.scheduler_components.pool_stats_observer import (
    SchedulerPoolStatsObserver,
)
from sglang.srt.mem_cache.allocation import alloc_token_slots
from sglang.srt.mem_cache.allocator.token import TokenToKVPoolAllocator
from sglang.srt.mem_cache.base_prefix_cache import EvictParams
from sglang.srt.mem_cache.cache_init_params import CacheInitParams
from sglang.srt.mem_cache.common import checkpoint_kv_cache, release_kv_cache
from sglang.srt.mem_cache.memory_pool import ReqToTokenPool
from sglang.srt.mem_cache.unified_cache.component_type import ComponentType
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache
from sglang.srt.runtime_context import get_context
from sglang.srt.sampling.sampling_params import SamplingParams

from sglang_multiverse.engine import kv
from sglang_multiverse.engine.extends import Extends, next_piece
from sglang_multiverse.engine.family import Family
from sglang_multiverse.engine.options import MultiverseArgs
from sglang_multiverse.engine.pressure import Pressure
from sglang_multiverse.engine.req import MultiverseReq
from sglang_multiverse.engine.scheduler import MultiverseScheduler
from sglang_multiverse.engine.stage import DECODING, Stage
from sglang_multiverse.engine.upstream import add_family_rows
from sglang_multiverse.engine.vocabulary import Vocabulary
from sglang_multiverse.structure import MULTIVERSE, Role, TagTable, forbidden_ids, layout

EOS = 1
TAG_IDS = {tag: 100 + i for i, tag in enumerate(MULTIVERSE.tags)}
TAGS = TagTable.from_ids(MULTIVERSE, TAG_IDS)
TAG_TEXTS = {token: tag for tag, token in TAG_IDS.items()}
THINK = {TAGS.id_of[Role.THINK_OPEN], TAGS.id_of[Role.THINK_CLOSE]}
FILLERS = [ord("a"), ord("b"), ord("c")]
SLOTS, ROWS, WIDTH = 192, 10, 256


class FakeTokenizer:
    """A token per tag, and one per ASCII character."""

    eos_token_id = EOS
    additional_stop_token_ids = None

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        pieces = re.findall(r"</?[A-Z][a-z]+>|.", text, re.DOTALL)
        return [TAG_IDS[p] if p in TAG_IDS else _char(p) for p in pieces]

    def decode(self, ids: list[int], **kwargs: Any) -> str:
        return "".join(TAG_TEXTS.get(token) or chr(token) for token in ids)


def _char(piece: str) -> int:
    code = ord(piece)
    return code if code < 100 else ord("a")


VOCABULARY = Vocabulary(TAGS, FakeTokenizer(), frozenset({EOS}), False)
ENCODE = FakeTokenizer().encode
FLAT = (
    "<Parallel><Goal><Outline>1: a</Outline><Outline>2: b</Outline></Goal>"
    "<Path>1:a</Path><Path>2:bb</Path><Conclusion>c</Conclusion></Parallel>a"
)
NESTED = (
    "<Parallel><Goal><Outline>1: a</Outline><Outline>2: b</Outline></Goal>"
    "<Path>1:<Parallel><Goal><Outline>1.1: a</Outline><Outline>1.2: b</Outline></Goal>"
    "<Path>1.1:a</Path><Path>1.2:bbb</Path><Conclusion>c</Conclusion></Parallel>a</Path>"
    "<Path>2:b</Path><Conclusion>c</Conclusion></Parallel>"
)
PLAN = "<Parallel><Goal><Outline>1: a</Outline><Outline>2: b</Outline></Goal>"
PROMPTS = [ENCODE(text) for text in ("ab", "abcabc", PLAN, "b" + FLAT + PLAN, FLAT + "c", NESTED)]


class World(MultiverseScheduler):
    """The scheduler's memory and families, without its processes, model and queues."""

    def __init__(self, slots: int = SLOTS, rows: int = ROWS) -> None:
        self.families = {}
        self.vocabulary = VOCABULARY
        self.extends, self.pressure = Extends(self), Pressure(self)
        self.enable_priority_scheduling = self.enable_lora = False
        self.chunked_prefill_size = 1000
        self.req_to_token_pool = ReqToTokenPool(rows, WIDTH, "cpu", False)
        self.token_to_kv_pool_allocator = TokenToKVPoolAllocator(
            slots, torch.float32, "cpu", None, False
        )
        self.slots, self.rows = slots, rows
        self.tree_cache = UnifiedRadixCache(
            CacheInitParams(
                disable=False,
                req_to_token_pool=self.req_to_token_pool,
                token_to_kv_pool_allocator=self.token_to_kv_pool_allocator,
                page_size=1,
                tree_components=(ComponentType.FULL,),
            )
        )
        records = self.tree_cache.session_records
        self.tree_cache.multiverse_rows = self._held_rows
        self.tree_cache.session_records = lambda: add_family_rows(records(), self.tree_cache)
        self.output_streamer = MagicMock()
        self.chunked_req = None
        self.alive: list[Family] = []
        self.arrived = 0
        shared: dict[str, Any] = {
            "tree_cache": self.tree_cache,
            "token_to_kv_pool_allocator": self.token_to_kv_pool_allocator,
            "req_to_token_pool": self.req_to_token_pool,
            "is_hybrid_swa": False,
            "is_hybrid_ssm": False,
            "full_tokens_per_layer": None,
            "swa_tokens_per_layer": None,
            "max_total_num_tokens": slots,
        }
        self.checker = SchedulerInvariantChecker(
            **shared,
            disaggregation_mode=DisaggregationMode.NULL,
            page_size=1,
            pool_stats_observer=SchedulerPoolStatsObserver(
                **shared,
                session_controller=SimpleNamespace(sessions={}),
                hisparse_coordinator=None,
                enable_hisparse=False,
            ),
            get_last_batch=lambda: SimpleNamespace(reqs=self.members()),
            get_running_batch=lambda: None,
            scheduler_stage_metrics=MagicMock(),
        )

    def members(self) -> list[MultiverseReq]:
        return [member for family in self.alive for member in family.members()]

    def queue_again(self, req: Any) -> None:
        pass  # it would go to SGLang's queue; `admit` finds it by its stage

    def arrive(self, prompt: list[int], budget: int = 80, **options: Any) -> Family:
        self.arrived += 1
        params = SamplingParams(max_new_tokens=budget)
        params.normalize(None)
        trunk = MultiverseReq(
            rid=f"r{self.arrived}",
            origin_input_text="",
            origin_input_ids=array("q", prompt),
            sampling_params=params,
            eos_token_ids={EOS},
            vocab_size=200,
        )
        trunk.tokenizer = VOCABULARY.tokenizer
        family = Family(
            trunk,
            MultiverseArgs(**options),
            VOCABULARY,
            self.req_to_token_pool,
            self.tree_cache,
            may_fork=True,
        )
        self.alive.append(family)
        return family

    # --- what SGLang does around a step ------------------------------------------

    def room(self) -> int:
        return self.extends.free_tokens()

    def queued(self) -> list[MultiverseReq]:
        return [f.trunk for f in self.alive if f.trunk.stage is Stage.QUEUED]

    @property
    def waiting_queue(self) -> list[MultiverseReq]:
        return self.queued()

    def go_on(self, choices: list[int]) -> None:
        """What a scheduler does when nothing happens to it."""
        moved = 0
        for req in self.extends.pending():
            if req not in self.extends.pending():
                continue  # its family ended, or moved on, with the extend before
            if not self.extend(req, choose(req, choices[0])):
                break
            moved += 1
        for req in self.queued():
            moved += self.admit(req, choose(req, choices[0]))
        if self.running():
            self.decode(choices)
        elif not moved and self.alive:
            partial = [trunk for trunk in self.queued() if trunk.kv.holds_kv]
            if partial:
                partial[-1].family.retract()
            else:
                self.pressure.break_jam()
            self._sweep()

    def admit(self, trunk: MultiverseReq, token: int, chunk: int = 1000) -> bool:
        """Prefill a trunk, or its next chunk; False where it does not fit."""
        if not trunk.kv.holds_kv:
            trunk.init_next_round_input(self.tree_cache)
        else:
            trunk.init_next_round_input()
        whole = len(trunk.full_untruncated_fill_ids)
        end = min(whole, trunk.prefix_len + chunk)
        if not trunk.kv.holds_kv:
            # Locked first: what it matched may be all that is evictable.
            trunk.lock = self.tree_cache.lock(trunk.last_node)
            needed = end - trunk.prefix_len
            if needed > self.room() or not self.req_to_token_pool.free_slots:
                self.tree_cache.unlock(trunk.lock)
                trunk.lock = None
                trunk.kv.cache_protected_len = 0
                return False
            self.req_to_token_pool.alloc([trunk])
            row = self.req_to_token_pool.req_to_token[trunk.kv.req_pool_idx]
            if trunk.prefix_len:
                row[: trunk.prefix_len] = self.tree_cache.prefix_device_indices(trunk)
        elif end - trunk.prefix_len > self.room():
            return False
        trunk.is_retracted = False
        self._fill(trunk, end)
        if end < whole:
            checkpoint_kv_cache(trunk, self.tree_cache)
        else:
            self._sampled(trunk, token, extend=True)
            self._settle(trunk.family, [trunk])
        self._sweep()
        return True

    def extend(self, req: MultiverseReq, token: int, chunk: int = 1000) -> bool:
        """What `_next_extend` does for one of `_pending`, and the step it leads to."""
        _, start, end = next_piece(req, chunk)
        assert start < end, req.family.describe()
        needs_row = not req.kv.holds_kv
        if end - start > self.room() or (needs_row and not self.req_to_token_pool.free_slots):
            return False
        if needs_row:
            kv.borrow_row(self.req_to_token_pool, req.parent, req)
        req.prefix_len = req.already_computed = start
        req.is_retracted = False
        req.extend_end = end
        req.refresh_fill_ids()
        req.set_discards(end)
        self._fill(req, end)
        self._sampled(req, token, extend=True)
        self._settle(req.family, [req])
        self._sweep()
        return True

    def _fill(self, req: MultiverseReq, end: int) -> None:
        start = req.prefix_len
        req.extend_end = end
        slots = alloc_token_slots(self.tree_cache, end - start)
        self.req_to_token_pool.req_to_token[req.kv.req_pool_idx, start:end] = slots.int()
        req.kv.kv_allocated_len = req.kv.kv_committed_len = end

    def _sampled(self, req: MultiverseReq, token: int, *, extend: bool) -> None:
        req.output_ids.append(token)
        req.update_finish_state()
        if req.finished():
            release_kv_cache(req, self.tree_cache, checkpoint=True)
        elif extend:
            checkpoint_kv_cache(req, self.tree_cache)

    def running(self) -> list[MultiverseReq]:
        return [m for m in self.members() if m.stage in DECODING and m.kv.holds_kv]

    def decode(self, choices: list[int]) -> None:
        """One step of the whole batch; `choices` decide every row's token."""
        batch = SimpleNamespace(reqs=self.running())
        while batch.reqs and len(batch.reqs) > self.room():
            if not self.pressure.make_room(batch):
                # SGLang gives up on the last request when it is alone.
                self.finish(batch.reqs[0].family, FINISH_ABORT("out of memory"))
                self._sweep()
            batch.reqs = self.running()
        for req in batch.reqs:
            at = req.kv.kv_committed_len
            slot = alloc_token_slots(self.tree_cache, 1)
            self.req_to_token_pool.req_to_token[req.kv.req_pool_idx, at] = slot.int()
            req.kv.kv_allocated_len += 1
            req.kv.kv_committed_len += 1
        for i, req in enumerate(batch.reqs):
            self._sampled(req, choose(req, choices[i % len(choices)]), extend=False)
        for family in {id(r.family): r.family for r in batch.reqs}.values():
            self._settle(family, [r for r in batch.reqs if r.family is family])
        self._sweep()

    def abort(self, family: Family) -> None:
        self.finish(family, FINISH_ABORT("aborted"))
        for member in family.members():
            assert not member.holds_slots
        self._sweep()

    def _sweep(self) -> None:
        for family in self.alive:
            assert family.error is None, family.error
        self.alive = [f for f in self.alive if not f.trunk.finished()]

    # --- the model ----------------------------------------------------------------

    def check(self) -> None:
        """One owner per slot and row, and SGLang's own account of them."""
        owners: dict[int, str] = {}

        def own(slots: list[int], owner: str) -> None:
            for slot in slots:
                assert slot not in owners, f"slot {slot}: {owners[slot]} and {owner}"
                owners[slot] = owner

        table = self.req_to_token_pool.req_to_token
        allocator = self.token_to_kv_pool_allocator
        own(allocator.free_pages.tolist(), "free")
        cached = self.tree_cache.all_values_flatten().tolist()
        own(cached, "tree")
        assert len(cached) == self.tree_cache.evictable_size() + self.tree_cache.protected_size()
        rows: list[int] = []
        in_tree = set(cached)
        for req in self.members():
            if req.slots is not None:
                own(req.slots.tolist(), req.rid)
            if not req.kv.holds_kv:
                continue
            rows.append(req.kv.req_pool_idx)
            row = table[req.kv.req_pool_idx].tolist()
            n = req.kv.cache_protected_len
            assert n <= req.kv.kv_committed_len == req.kv.kv_allocated_len
            own(row[n : req.kv.kv_allocated_len], req.rid)
            if req.parent is None:
                assert in_tree.issuperset(row[:n])
            else:
                parent = req.parent.kv
                assert parent.holds_kv and n <= parent.kv_committed_len
                assert row[:n] == table[parent.req_pool_idx, :n].tolist()
            self._check_position(req)
        assert set(owners) == set(range(1, self.slots + 1))
        assert sorted([*rows, *self.req_to_token_pool.free_slots]) == list(range(1, self.rows + 1))
        with envs.SGLANG_CHECK_KV_PAGE_INVARIANTS.override(True):
            self.checker.self_check_during_busy()

    def _check_position(self, req: MultiverseReq) -> None:
        n = req.row_len
        if req.is_branch and req.closed and n == req.seqlen:
            return  # what follows a branch is its siblings'
        expected = layout([*req.ids()[:n], FILLERS[0]], TAGS).positions[n]
        assert n + req.position_offset == expected, req.family.describe()


def choose(req: MultiverseReq, choice: int) -> int:
    """A token the guard permits: mostly what leads on, at times prose or the end."""
    masked = set(forbidden_ids(TAGS, req.family.permitted([req])[0], VOCABULARY.eos_ids)) | THINK
    tags = [token for token in TAGS.role_of if token not in masked]
    if choice % 4 == 0 or not tags:
        if choice % 16 == 0 and EOS not in masked:
            return EOS
        return FILLERS[choice % len(FILLERS)]
    return tags[choice % len(tags)]


@pytest.fixture(scope="module", autouse=True)
def _published() -> Iterator[None]:
    """SGLang's components read its published configuration."""
    with get_context().override_server_args():
        yield


CHOICE = st.integers(0, 63)


class Ownership(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.steps = 0

    @precondition(lambda self: len(self.world.alive) < 4)
    @rule(
        prompt=st.sampled_from(PROMPTS),
        cut=st.integers(0, 40),
        budget=st.sampled_from([200, 200, 60, 12]),
        width=st.sampled_from([256, 256, 1, 2]),
    )
    def arrive(self, prompt: list[int], cut: int, budget: int, width: int) -> None:
        ids = prompt[: max(len(prompt) - max(cut - 20, 0), 1)]
        self.world.arrive(ids, budget, max_parallel_branches=width)

    @precondition(lambda self: self.world.queued())
    @rule(which=CHOICE, token=CHOICE, chunk=st.sampled_from([1000, 1000, 16, 3]))
    def admit(self, which: int, token: int, chunk: int) -> None:
        queued = self.world.queued()
        req = queued[which % len(queued)]
        self.world.admit(req, choose(req, token), chunk)

    @precondition(lambda self: self.world.extends.pending())
    @rule(token=CHOICE, count=st.integers(1, 6), chunk=st.sampled_from([1000, 1000, 5]))
    def extend(self, token: int, count: int, chunk: int) -> None:
        for _ in range(count):
            pending = self.world.extends.pending()
            if not pending or not self.world.extend(pending[0], choose(pending[0], token), chunk):
                break
            self.world.check()

    @precondition(lambda self: self.world.running())
    @rule(choices=st.lists(st.lists(CHOICE, min_size=1, max_size=5), min_size=1, max_size=6))
    def decode(self, choices: list[list[int]]) -> None:
        for step in choices:
            self.world.decode(step)
            self.world.check()

    @rule(rounds=st.lists(st.lists(CHOICE, min_size=1, max_size=4), min_size=4, max_size=20))
    def go_on(self, rounds: list[list[int]]) -> None:
        for choices in rounds:
            self.world.go_on(choices)
            self.world.check()

    def _branches(self) -> list[MultiverseReq]:
        return [m for m in self.world.running() if m.is_branch and m.stage is Stage.DECODE]

    @precondition(lambda self: self._branches())
    @rule(which=CHOICE)
    def retract_branch(self, which: int) -> None:
        rows = self._branches()
        req = rows[which % len(rows)]
        req.family.retract_from(req)

    @precondition(lambda self: self.world.alive)
    @rule(which=CHOICE)
    def retract_family(self, which: int) -> None:
        family = self.world.alive[which % len(self.world.alive)]
        family.retract()
        assert not any(m.holds_slots for m in family.members())
        family.retract()

    @rule(n=st.integers(1, 64))
    def evict(self, n: int) -> None:
        self.world.tree_cache.evict(EvictParams(num_tokens=n))

    @precondition(lambda self: self.world.alive)
    @rule(which=CHOICE)
    def abort(self, which: int) -> None:
        self.world.abort(self.world.alive[which % len(self.world.alive)])

    @precondition(lambda self: not self.world.alive)
    @rule()
    def flush(self) -> None:
        world = self.world
        world.tree_cache.reset()
        world.req_to_token_pool.clear()
        world.token_to_kv_pool_allocator.clear()

    @invariant()
    def one_owner(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        for family in list(self.world.alive):
            self.world.abort(family)
        self.world.check()
        assert not self.world.families
        assert len(self.world.req_to_token_pool.free_slots) == ROWS
        assert self.world.room() == SLOTS


Ownership.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestOwnership = Ownership.TestCase


def test_branches_of_a_family_retracted_twice_keep_their_positions() -> None:
    """The second time its trunk has not come back to where they branch off."""
    world = World()
    family = world.arrive(ENCODE(FLAT + PLAN), 60)
    while not family.forked or family.trunk.replaying:
        world.go_on([4])
    family.retract()
    family.retract()
    while world.alive:
        world.go_on([1])
        world.check()
    assert world.room() == SLOTS
