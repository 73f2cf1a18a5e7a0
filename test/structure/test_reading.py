"""The automaton and the layout against the definition, and against themselves."""

from __future__ import annotations

import gc
import itertools
import sys
import time
from types import FrameType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_multiverse.structure import Automaton, Block, layout, parse, walk

from .strategies import (
    VOCABULARIES,
    M,
    N,
    T,
    Vocabulary,
    any_text,
    any_well_formed,
    quick,
    soup,
    texts,
    with_vocabulary,
)


def state(automaton: Automaton) -> tuple[Any, ...]:
    """All an automaton knows, by value."""
    frames = tuple(
        tuple(
            tuple(value) if isinstance(value, list) else value
            for value in (getattr(frame, name) for name in frame.__slots__)
        )
        for frame in automaton.frames
    )
    return automaton.length, automaton.position, automaton.hidden, automaton.think_open, frames


def fed(v: Vocabulary, ids: list[int]) -> Automaton:
    automaton = Automaton(v.tags)
    automaton.feed(ids)
    return automaton


def rows(ids: list[int], v: Vocabulary) -> list[tuple[int, list[tuple[int, int]]]]:
    """Per token its position and its non-empty hidden intervals, from the batch form."""
    whole = layout(ids, v.tags)
    return [
        (int(position), [(int(lo), int(hi)) for lo, hi in intervals if lo < hi])
        for position, intervals in zip(whole.positions, whole.hidden, strict=True)
    ]


def check_against_definition(ids: list[int], v: Vocabulary) -> None:
    reading = v.reading(ids)
    whole = layout(ids, v.tags)
    assert whole.positions.tolist() == reading.positions()
    assert whole.dense_mask().tolist() == reading.mask()
    assert [hidden for _, hidden in rows(ids, v)] == reading.hidden()
    assert parse(ids, v.tags).stray == reading.stray()


# --- one reading, the definition's ---------------------------------------------


@quick(800)
@given(any_text)
def test_layout_is_the_definitions(case: tuple[Vocabulary, list[int]]) -> None:
    v, ids = case
    check_against_definition(ids, v)


def test_every_tag_in_every_phase() -> None:
    """All pairs of words after one text per phase, alone and within a branch."""
    begun = {
        M: "<Parallel> <Goal> <Outline> </Outline> <Outline> </Outline> </Goal> x <Path> "
        "x </Path> <Path> </Path> <Conclusion> </Conclusion>",
        N: "<guideline> <plan> </plan> <plan> </plan> </guideline> x <step> "
        "x </step> <step> </step> <takeaway>",
        T: "<Parallel> <Outlines> <Outline> </Outline> <Outline> </Outline> </Outlines> x <Thread> "
        "x </Thread> <Thread> </Thread> x",
    }
    for v, text in begun.items():
        whole = v.encode(text)
        branch = whole[: whole.index(v.ids[v.dialect.branch.open]) + 2]
        alone = [whole[:k] for k in range(len(whole) + 1)]
        for prefix in (*alone, *(branch + text for text in alone[::3])):
            for more in itertools.product((*v.tag_ids, 0), repeat=2):
                check_against_definition([*prefix, *more, 0], v)


@quick(300)
@given(any_text)
def test_parse_is_the_definitions(case: tuple[Vocabulary, list[int]]) -> None:
    v, ids = case
    reading = v.reading(ids)
    trace = parse(ids, v.tags)
    assert trace.length == len(ids)
    assert trace.positions == reading.positions()
    assert trace.stray == reading.stray()
    assert [describe(block) for block in walk(trace.blocks)] == [
        (
            (block.start, len(ids) if block.end is None else block.end),
            block.end is not None,
            block.goal_end,
            block.outlines,
            [(slot.start, slot.end, slot.closed) for slot in block.branches],
            [nested.start for slot in block.branches for nested in slot.blocks if nested.branches],
            block.conclusion,
        )
        for block in reading.parallel_blocks()
    ]
    begun = reading.all_blocks()
    assert sorted(trace.empty) == [b.start for b in begun if not b.branches and b.end is not None]
    assert trace.open_blocks == sum(block.end is None for block in begun)


def describe(block: Block) -> tuple[Any, ...]:
    return (
        tuple(block.span),
        block.closed,
        block.goal_end,
        [tuple(outline) for outline in block.outlines],
        [(*branch.span, branch.closed) for branch in block.branches],
        [nested.span.lo for branch in block.branches for nested in branch.blocks],
        None if block.conclusion is None else tuple(block.conclusion),
    )


@quick(200)
@given(st.sampled_from(VOCABULARIES), st.lists(st.integers(-5, 40), max_size=80))
def test_total(v: Vocabulary, ids: list[int]) -> None:
    """No sequence is refused, and every tag is either in place or stray."""
    reading = v.reading(ids)
    trace = parse(ids, v.tags)
    automaton = Automaton(v.tags)
    in_place = [i for i, token in enumerate(ids) if automaton.push(token) is not None]
    tags_at = [i for i, token in enumerate(ids) if token in v.tag_ids]
    assert in_place == sorted(reading.in_place)
    assert sorted(in_place + trace.stray) == tags_at
    assert len(layout(ids, v.tags)) == trace.length == len(ids)
    assert isinstance(trace.defects, list)
    assert trace.statistics().tokens == len(ids)


def test_no_text_at_all() -> None:
    empty = layout([], M.tags)
    assert len(empty) == 0
    assert empty.dense_mask().shape == (0, 0)
    trace = parse([], M.tags)
    assert trace.well_formed
    assert trace.statistics() == (0, 0, 0, 0, 0)
    assert trace.statistics().degree_of_parallelism == 1.0


def test_nesting_without_bound() -> None:
    """A text may nest deeper than Python's stack; reading it must not care."""
    level = M.encode("<Parallel> <Goal> <Outline> </Outline> </Goal> <Path>")
    end = M.encode("</Path> <Conclusion> </Conclusion> </Parallel>")
    depth = sys.getrecursionlimit() + 500
    trace = parse(level * depth + end * depth, M.tags)
    assert trace.well_formed
    assert trace.statistics().depth == trace.statistics().blocks == depth
    assert parse(level * depth, M.tags).defects[0] == f"{depth} block(s) never closed"


# --- incremental equals batch ----------------------------------------------------


@quick(300)
@given(any_text)
def test_incremental_is_batch(case: tuple[Vocabulary, list[int]]) -> None:
    v, ids = case
    automaton = Automaton(v.tags)
    seen: list[tuple[int, list[tuple[int, int]]]] = []
    for token in ids:
        assert automaton.length == len(seen)
        seen.append((automaton.position, [(lo, hi) for lo, hi in automaton.hidden]))
        automaton.push(token)
    assert seen == rows(ids, v)
    assert state(automaton) == state(fed(v, ids))
    assert automaton == fed(v, ids)


@quick(150)
@given(with_vocabulary(lambda v: texts(v).map(lambda ids: ids[:60])), st.data())
def test_copies_go_their_own_ways(case: tuple[Vocabulary, list[int]], data: st.DataObject) -> None:
    """A copy at any point goes on as the original would, and neither moves the other."""
    v, ids = case
    other = data.draw(soup(v, 15))
    automaton = Automaton(v.tags)
    for at in range(len(ids) + 1):
        before = state(automaton)
        assert before == state(fed(v, ids[:at]))
        twin, astray = automaton.copy(), automaton.copy()
        assert twin == automaton
        twin.feed(ids[at:])
        assert state(automaton) == before
        astray.feed(other)
        assert state(automaton) == before
        assert state(twin) == state(fed(v, ids))
        assert state(astray) == state(fed(v, ids[:at] + other))
        if at < len(ids):
            kept = state(astray)
            automaton.push(ids[at])
            assert state(astray) == kept


@quick(200)
@given(any_text, st.data())
def test_later_tokens_change_nothing(
    case: tuple[Vocabulary, list[int]], data: st.DataObject
) -> None:
    """The layout of a token is settled by the ids before it; not even its own id matters."""
    v, ids = case
    more = data.draw(soup(v, 20))
    at = data.draw(st.integers(0, len(ids)))
    original, changed = rows(ids, v), rows(ids[:at] + more, v)
    common = min(at + 1, len(original), len(changed))
    assert changed[:common] == original[:common]


@quick(100)
@given(any_text, st.integers(0, 50))
def test_skipping_is_reading_ordinary_tokens(
    case: tuple[Vocabulary, list[int]], count: int
) -> None:
    v, ids = case
    skipping = fed(v, ids)
    skipping.skip(count)
    assert state(skipping) == state(fed(v, ids + [0] * count))


# --- what the rules imply, without the definition --------------------------------


@quick(200)
@given(any_text)
def test_stray_tags_are_ordinary_tokens(case: tuple[Vocabulary, list[int]]) -> None:
    v, ids = case
    stray = set(parse(ids, v.tags).stray)
    plain = [0 if i in stray else token for i, token in enumerate(ids)]
    assert parse(plain, v.tags).stray == []
    assert parse(plain, v.tags).blocks == parse(ids, v.tags).blocks
    assert rows(plain, v) == rows(ids, v)


@quick(200)
@given(any_text)
def test_blocks_without_branches_are_ordinary_text(case: tuple[Vocabulary, list[int]]) -> None:
    v, ids = case
    reading = v.reading(ids)
    plain = list(ids)
    for block in reading.all_blocks():
        if not block.branches:
            span = range(block.start, len(ids) if block.end is None else block.end)
            plain = [0 if i in span else token for i, token in enumerate(plain)]
    assert rows(plain, v) == rows(ids, v)
    assert parse(plain, v.tags).blocks == parse(ids, v.tags).blocks


@quick(200)
@given(any_text)
def test_a_branch_is_a_continuation_of_its_goal(case: tuple[Vocabulary, list[int]]) -> None:
    """What a fork relies on: `prefix ++ own tokens` has the layout of the linear text."""
    v, ids = case
    linear = layout(ids, v.tags)
    sees = linear.dense_mask()
    for block in walk(parse(ids, v.tags).blocks):
        for branch in block.branches:
            kept = [*range(block.goal_end), *range(*branch.span)]
            alone = layout([ids[i] for i in kept], v.tags)
            assert alone.positions.tolist() == linear.positions[kept].tolist()
            assert (alone.dense_mask() == sees[np.ix_(kept, kept)]).all()
            lost = sorted(set(range(branch.span.hi)) - set(kept))
            assert not sees[np.ix_(range(*branch.span), lost)].any()


@quick(150)
@given(any_well_formed)
def test_blocks_in_words(case: tuple[Vocabulary, list[int]]) -> None:
    """The rules of DESIGN, sentence by sentence, on whole blocks."""
    v, ids = case
    whole = layout(ids, v.tags)
    positions, sees = whole.positions, whole.dense_mask()
    trace = parse(ids, v.tags)
    assert trace.well_formed
    for block in walk(trace.blocks):
        spans = [branch.span for branch in block.branches]
        assert spans[0].lo == block.goal_end
        assert all(one.hi == two.lo for one, two in itertools.pairwise(spans))
        for span in spans:
            assert ids[span.hi - 1] == v.ids[v.dialect.branch.close]
            assert positions[span.lo] == positions[block.goal_end - 1] + 1
            inside = sees[span.lo : span.hi]
            assert inside[:, : block.goal_end].tolist() == [
                sees[span.lo, : block.goal_end].tolist()
            ] * len(inside)
            assert not inside[:, block.goal_end : span.lo].any()
        after = spans[-1].hi
        assert positions[after] == 1 + max(positions[span.hi - 1] for span in spans)
        assert sees[after, block.span.lo : after + 1].all()


@pytest.mark.parametrize("v", VOCABULARIES, ids=repr)
def test_hidden_intervals_ascend_and_nest(v: Vocabulary) -> None:
    @quick(100)
    @given(texts(v))
    def check(ids: list[int]) -> None:
        automaton = Automaton(v.tags)
        for token in ids:
            hidden = automaton.hidden
            assert len(hidden) <= automaton.depth
            assert all(lo < hi <= automaton.length for lo, hi in hidden)
            assert all(one.hi <= two.lo for one, two in itertools.pairwise(hidden))
            automaton.push(token)

    check()


# --- cost ------------------------------------------------------------------------


def long_text(tokens: int) -> dict[str, list[int]]:
    """Texts of `tokens` tokens that would show work that grows with what was read."""
    outlines = M.encode("<Outline> </Outline>")
    branches = M.encode("<Path> </Path>")
    block = M.encode(
        "<Parallel> <Goal> <Outline> x </Outline> <Outline> x </Outline> </Goal> "
        "<Path> x </Path> <Path> x </Path> <Conclusion> x </Conclusion> </Parallel>"
    )
    many = tokens // 4 - 1
    wide = M.encode("<Parallel> <Goal>") + outlines * many + M.encode("</Goal>") + branches * many
    return {
        "prose": [0] * tokens,
        "stray": M.encode("</Path> <Goal> <Outline>") * (tokens // 3),
        "blocks": block * (tokens // len(block)),
        "wide": wide,
        "plan": M.encode("<Parallel> <Goal>") + outlines * (tokens // 2),
    }


@pytest.mark.parametrize("kind", ["prose", "stray", "blocks", "wide", "plan"])
def test_a_token_costs_the_same_anywhere(kind: str) -> None:
    """Counted in lines of Python run, so that a busy machine does not matter."""

    def most_lines(ids: list[int]) -> int:
        automaton = Automaton(M.tags)
        ran, most = 0, 0

        def trace(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal ran
            if "sglang_multiverse" not in frame.f_code.co_filename:
                return None
            ran += event == "line"
            return trace

        earlier = sys.gettrace()
        sys.settrace(trace)
        try:
            for token in ids:
                ran = 0
                automaton.push(token)
                _ = automaton.position, automaton.hidden
                most = max(most, ran)
        finally:
            sys.settrace(earlier)
        return most

    assert most_lines(long_text(20_000)[kind]) == most_lines(long_text(1_000)[kind])


@pytest.mark.parametrize("kind", ["prose", "stray", "blocks", "wide", "plan"])
def test_reading_time_is_linear(kind: str) -> None:
    """Work hidden in C: eight times the text is to take eight times as long, not sixty-four."""

    def seconds(ids: list[int]) -> float:
        """Of this thread's own time, so that a busy machine matters little."""
        start = time.thread_time()
        automaton = Automaton(M.tags)
        for token in ids:
            automaton.push(token)
            _ = automaton.hidden
        return time.thread_time() - start

    short, long = long_text(2_500)[kind], long_text(20_000)[kind]
    gc.collect()
    gc.disable()  # its passes cost what the whole process holds
    try:
        ratios: list[float] = []
        while len(ratios) < 5 and (not ratios or min(ratios) >= 16):
            quickest = [min(seconds(ids) for _ in range(3)) for ids in (short, long)]
            ratios.append(quickest[1] / quickest[0])
    finally:
        gc.enable()
    assert min(ratios) < 16
