"""The outputs of a public Multiverse model under the original engine, held beside the checkout."""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from sglang_multiverse.structure import MULTIVERSE, TagTable, layout, parse, walk

from .definition import Reading, well_formed

TRACES = Path(__file__).resolve().parents[3] / "shared" / "data" / "multiverse_traces.jsonl"
COUNT, MALFORMED = 42, 16

# In CI the traces are there: not to find them is a failure, not a reason to skip.
pytestmark = pytest.mark.skipif(
    not TRACES.is_file() and "CI" not in os.environ,
    reason=f"no traces at ../shared/data/{TRACES.name} beside the checkout",
)


class RealTrace(NamedTuple):
    balanced: bool
    words: list[str]
    ids: list[int]
    tags: TagTable


@cache
def traces() -> dict[str, RealTrace]:
    """Tags are words; between them words are runs of white space and of anything else."""
    split = re.compile("|".join([*map(re.escape, MULTIVERSE.tags), r"\s+", r"[^\s<]+|<"]))
    ids = {tag: i for i, tag in enumerate(MULTIVERSE.tags)}
    tags = TagTable.from_ids(MULTIVERSE, dict(ids))
    found = {}
    for line in TRACES.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        words = split.findall(record["output"])
        assert "".join(words) == record["output"]
        tokens = [ids.setdefault(word, len(ids)) for word in words]
        found[record["id"]] = RealTrace(record["balanced"], words, tokens, tags)
    return found


NUMBERS = range(COUNT)


def test_all_are_there() -> None:
    assert len(traces()) == COUNT
    assert sum(not trace.balanced for trace in traces().values()) == MALFORMED


@pytest.mark.parametrize("number", NUMBERS)
def test_the_reading_is_the_definitions(number: int) -> None:
    name, real = list(traces().items())[number]
    reading = Reading(real.words, MULTIVERSE)
    trace = parse(real.ids, real.tags)

    assert trace.well_formed == real.balanced == well_formed(real.words, MULTIVERSE), name
    assert trace.stray == reading.stray()
    blocks = walk(trace.blocks)
    assert [
        (block.span.lo, block.goal_end, block.closed, len(block.outlines), block.conclusion)
        for block in blocks
    ] == [
        (block.start, block.goal_end, block.end is not None, len(block.outlines), block.conclusion)
        for block in reading.parallel_blocks()
    ]
    assert [branch.span for block in blocks for branch in block.branches] == [
        (slot.start, slot.end) for block in reading.parallel_blocks() for slot in block.branches
    ]

    whole = layout(real.ids, real.tags)
    assert whole.positions.tolist() == trace.positions == reading.positions()
    hidden = reading.hidden()
    assert [
        [(lo, hi) for lo, hi in intervals if lo < hi] for intervals in whole.hidden.tolist()
    ] == hidden
    # Rows of the dense mask: a few at random, and those where a branch begins or ends.
    rng = random.Random(number)
    edges = [i for slot in blocks for b in slot.branches for i in (b.span.lo, b.span.hi - 1)]
    for i in rng.sample(range(len(real.ids)), 10) + rng.sample(edges, min(10, len(edges))):
        seen = set(range(i + 1)).difference(*(range(lo, hi) for lo, hi in hidden[i]))
        not_hidden = set(range(i + 1)).difference(*(range(lo, hi) for lo, hi in whole.hidden[i]))
        assert seen == not_hidden

    statistics = trace.statistics()
    assert statistics.tokens == len(real.ids)
    assert statistics.critical_path_tokens == 1 + max(reading.positions())
    if real.balanced:
        assert statistics.branches == real.words.count("<Path>")
        assert statistics.blocks == real.words.count("<Parallel>")


@pytest.mark.parametrize("number", NUMBERS)
def test_dense_mask_of_an_excerpt(number: int) -> None:
    """Prose shortened to a word between tags leaves the structure, small enough to be dense."""
    _, real = list(traces().items())[number]
    kept = [
        i
        for i, word in enumerate(real.words)
        if word in MULTIVERSE.tags or i == 0 or real.words[i - 1] in MULTIVERSE.tags
    ][:250]
    words = [real.words[i] for i in kept]
    reading = Reading(words, MULTIVERSE)
    whole = layout([real.ids[i] for i in kept], real.tags)
    assert whole.dense_mask().tolist() == reading.mask()
    assert whole.positions.tolist() == reading.positions()


@pytest.mark.parametrize(
    ("name", "stray", "blocks", "open_blocks"),
    [
        # Seven outlines, seven paths, three of them closed more than once.
        ("GPQA/question_104", {"</Path>": 3}, [(7, 7, True)], 0),
        # The last block opens its third path twice and breaks off in an early conclusion.
        ("GPQA/question_56", {"<Path>": 1}, [(2, 2), (2, 2), (3, 3), (2, 2), (4, 3, False)], 1),
        # Ten outlines; the second path nests a block without <Parallel>, whose
        # goal is ordinary, whose paths are read as those of the block around it
        # and whose conclusion ends that block after three.
        ("GPQA/question_61", None, [(10, 3, True)], 0),
    ],
)
def test_malformed_ones_by_hand(
    name: str,
    stray: dict[str, int] | None,
    blocks: list[tuple[int, int, bool] | tuple[int, int]],
    open_blocks: int,
) -> None:
    """Per block: outlines, branches, and whether it was closed (it was, if not stated)."""
    real = traces()[name]
    trace = parse(real.ids, real.tags)
    if stray is not None:
        assert Counter(real.words[i] for i in trace.stray) == stray
    assert [
        (len(block.outlines), len(block.branches), block.closed) for block in walk(trace.blocks)
    ] == [(*block, True)[:3] for block in blocks]
    assert trace.open_blocks == open_blocks
