"""The guard's table on a batch: what the grammar says, exact totals, and cheap rows."""

from __future__ import annotations

import random
import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sglang_multiverse.engine.guard import guard_mask, permitted
from sglang_multiverse.engine.options import MultiverseArgs
from sglang_multiverse.engine.req import MultiverseReq
from sglang_multiverse.engine.vocabulary import Vocabulary
from sglang_multiverse.structure import Automaton, Limits, TagTable, forbidden_ids


@pytest.fixture(scope="module")
def vocabulary(tiny_tokenizer: Any) -> Vocabulary:
    tiny_tokenizer.additional_stop_token_ids = None
    return Vocabulary.of(tiny_tokenizer, {tiny_tokenizer.eos_token_id})


class Sequence(MultiverseReq):
    """A sequence as the guard sees it: what it has read, and its place in the tree."""

    def __init__(self, family: Any, automaton: Automaton, depth: int) -> None:
        self.family, self.automaton, self.depth = family, automaton, depth
        self.children: list[MultiverseReq] = []
        self.discards = False


def make_family(
    vocabulary: Vocabulary, prefix: list[int], branches: int, options: MultiverseArgs
) -> Any:
    """A trunk that has read `prefix`, and as many branches, which have read it too."""
    family = SimpleNamespace(vocabulary=vocabulary, options=options, branches=branches)
    family.limits = Limits(options.max_depth, options.max_branches, options.max_total_branches)
    automaton = Automaton(vocabulary.tags)
    automaton.feed(prefix)
    family.trunk = Sequence(family, automaton, 0)
    family.trunk.children = [
        Sequence(family, automaton.copy(), automaton.depth) for _ in range(branches)
    ]
    family.members = lambda: [family.trunk, *family.trunk.children]
    return family


def plan(tags: TagTable, branches: int) -> list[int]:
    names = {tag: tags.id_of[role] for tag, role in tags.dialect.roles.items()}
    outline = [names["<Outline>"], names["</Outline>"]]
    return [names["<Parallel>"], names["<Goal>"], *outline * branches, names["</Goal>"]]


def rows_of(family: Any) -> list[MultiverseReq]:
    return list(family.trunk.children) or [family.trunk]


@pytest.mark.parametrize("total", [5, 8, 40, 256])
def test_the_table_forbids_what_the_grammar_forbids(vocabulary: Vocabulary, total: int) -> None:
    """Random walks of allowed tags of 4 families, far from the limit on branches and at it."""
    tags, rng = vocabulary.tags, random.Random(total)
    options = MultiverseArgs(max_depth=3, max_branches=4, max_total_branches=total)
    families = [
        make_family(vocabulary, [], 0, options),
        make_family(vocabulary, plan(tags, 3), 3, options),
        make_family(vocabulary, plan(tags, 4), 4, options),
        make_family(vocabulary, plan(tags, 2), 2, MultiverseArgs(guard=False)),
    ]
    seen = set()
    for _ in range(60):
        rows = [row for family in families for row in rows_of(family)]
        mask = guard_mask(rows, "cpu")
        assert mask is not None
        logits = torch.zeros(len(rows), 520)
        mask.apply(logits)
        seen |= set(mask.states.tolist())
        at = 0
        for family in families:
            own = rows_of(family)
            for row, may in zip(own, permitted(family, own), strict=True):
                forbidden = set(forbidden_ids(tags, may, vocabulary.eos_ids))
                expected = forbidden if family.options.guard else set()
                assert set(logits[at].isinf().nonzero().flatten().tolist()) == expected
                at += 1
                if rng.random() < 0.6:
                    allowed = [tags.id_of[role] for role in may.roles]
                    row.automaton.push(rng.choice(sorted(allowed) or [1]))
    assert len(seen) >= 8


def test_rows_that_are_not_guarded_keep_their_logits(vocabulary: Vocabulary) -> None:
    free = make_family(vocabulary, [], 0, MultiverseArgs(guard=False))
    assert guard_mask([free.trunk], "cpu") is None
    guarded = make_family(vocabulary, [], 0, MultiverseArgs())
    guarded.trunk.discards = True
    assert guard_mask([guarded.trunk, SimpleNamespace()], "cpu") is None


def seconds(rows: list[MultiverseReq], repeat: int = 30) -> float:
    """The least time of one mask, made and applied to logits of 512 columns."""
    logits = torch.zeros(len(rows), 512)
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        mask = guard_mask(rows, "cpu")
        assert mask is not None
        mask.apply(logits)
        times.append(time.perf_counter() - start)
    return min(times)


def test_a_mask_is_cheap(vocabulary: Vocabulary, record_property: Any) -> None:
    """Far above what was measured, so that a busy machine does not fail it."""
    options = MultiverseArgs()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # waiting for a busy machine's other cores is not our time
    for count in (256, 512):
        never = [make_family(vocabulary, [], 0, options).trunk for _ in range(count)]
        prefix = plan(vocabulary.tags, 16)
        forked = [
            row
            for _ in range(count // 16)
            for row in rows_of(make_family(vocabulary, prefix, 16, options))
        ]
        for name, rows in (("never forked", never), ("16 branches each", forked)):
            spent = seconds(rows)
            record_property(f"{count} rows, {name}", f"{spent * 1e3:.3f} ms")
            print(f"{count} rows, {name}: {spent * 1e3:.3f} ms")
            assert spent < count * 10e-6
    torch.set_num_threads(threads)
