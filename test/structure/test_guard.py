"""The guard: it lets every well-formed text through and nothing else."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_multiverse.structure import (
    Allowed,
    Automaton,
    Limits,
    Phase,
    Role,
    allowed,
    forbidden_ids,
    parse,
    walk,
)

from .definition import well_formed
from .strategies import (
    VOCABULARIES,
    M,
    N,
    T,
    Vocabulary,
    any_text,
    any_well_formed,
    quick,
)

ROOMY = Limits(max_depth=50, max_branches=50, max_total_branches=500)
CLOSING = (
    Role.BRANCH_CLOSE,
    Role.BRANCH_OPEN,
    Role.CONCLUSION_CLOSE,
    Role.CONCLUSION_OPEN,
    Role.GOAL_CLOSE,
    Role.OUTLINE_CLOSE,
    Role.BLOCK_CLOSE,
    Role.OUTLINE_OPEN,
    Role.GOAL_OPEN,
)
limits = st.builds(
    Limits,
    max_depth=st.integers(0, 3),
    max_branches=st.integers(1, 4),
    max_total_branches=st.integers(0, 12),
)


class Writer:
    """Writes under the guard, as the engine does: only what is allowed, branches ended by EOS."""

    def __init__(self, v: Vocabulary, bounds: Limits, prompt: list[int] | None = None) -> None:
        self.v, self.bounds = v, bounds
        self.ids = list(prompt or [])
        self.automaton = Automaton(v.tags)
        self.automaton.feed(self.ids)
        self.total = 0
        self.ended = False

    def permitted(self) -> Allowed:
        return allowed(self.automaton, self.bounds, self.total)

    def write(self, token: int) -> None:
        role = self.automaton.push(token)
        assert (token in self.v.tag_ids) == (role is not None)  # what is allowed is in place
        self.ids.append(token)
        if role is Role.GOAL_CLOSE:
            self.total += len(self.automaton.frames[-1].outlines)

    def end(self) -> None:
        """EOS: in a branch it stands for the closing tag, outside blocks it ends the text."""
        if self.automaton.frames:
            self.write(self.v.tags.id_of[Role.BRANCH_CLOSE])
        else:
            self.ended = True

    def finish(self) -> None:
        """The shortest way to an end."""
        for _ in range(20 * (self.automaton.depth + 1) + 20 * self.outlines_open()):
            permitted = self.permitted()
            if not self.automaton.frames:
                break
            role = next(role for role in CLOSING if role in permitted.roles)
            self.write(self.v.tags.id_of[role])
        assert self.permitted().end
        self.end()
        assert self.ended

    def outlines_open(self) -> int:
        return sum(len(frame.outlines) + 1 for frame in self.automaton.frames)

    def wander(self, rng: random.Random, steps: int) -> None:
        for _ in range(steps):
            permitted = self.permitted()
            forbidden = set(forbidden_ids(self.v.tags, permitted, frozenset({self.v.eos})))
            free = [t for t in (*self.v.tag_ids, 0, 1, self.v.eos) if t not in forbidden]
            tags = [t for t in free if t in self.v.tag_ids]
            token = rng.choice(tags if tags and rng.random() < 0.7 else free)
            if token == self.v.eos:
                assert permitted.end
                self.end()
                if self.ended:
                    return
            else:
                self.write(token)


def check_limits(ids: list[int], v: Vocabulary, bounds: Limits) -> None:
    blocks = v.reading(ids).all_blocks()
    assert v.reading(ids).depth() <= bounds.max_depth
    assert all(len(block.outlines) <= bounds.max_branches for block in blocks)
    assert sum(len(block.outlines) for block in blocks) <= bounds.max_total_branches


@quick(300)
@given(st.sampled_from(VOCABULARIES), limits, st.randoms(use_true_random=False))
def test_what_is_written_under_the_guard_is_well_formed(
    v: Vocabulary, bounds: Limits, rng: random.Random
) -> None:
    writer = Writer(v, bounds)
    writer.wander(rng, 120)
    if not writer.ended:
        writer.finish()
    assert well_formed(v.words(writer.ids), v.dialect)
    assert parse(writer.ids, v.tags).well_formed
    check_limits(writer.ids, v, bounds)


def test_walks_reach_the_limits() -> None:
    """The test above is not vacuous: walks nest and branch as far as they may."""
    bounds = Limits(max_depth=3, max_branches=4, max_total_branches=12)
    for v in VOCABULARIES:
        deepest = widest = most = 0
        for seed in range(60):
            writer = Writer(v, bounds)
            while not writer.ended and len(writer.ids) < 600:
                writer.wander(random.Random(f"{seed} {len(writer.ids)}"), 50)
            if not writer.ended:
                writer.finish()
            check_limits(writer.ids, v, bounds)
            statistics = parse(writer.ids, v.tags).statistics()
            deepest = max(deepest, statistics.depth)
            most = max(most, statistics.branches)
            for block in walk(parse(writer.ids, v.tags).blocks):
                widest = max(widest, len(block.branches))
        assert (deepest, widest, most) == (3, 4, 12), v


@quick(200)
@given(any_text, limits, st.randoms(use_true_random=False))
def test_the_guard_mends_any_beginning(
    case: tuple[Vocabulary, list[int]], bounds: Limits, rng: random.Random
) -> None:
    """Whatever the prompt left open, what is written after it adds no defect of its own."""
    v, prompt = case
    writer = Writer(v, bounds, prompt)
    writer.wander(rng, 60)
    if not writer.ended:
        writer.finish()
    trace = parse(writer.ids, v.tags)
    assert trace.open_blocks == 0
    assert all(i < len(prompt) for i in (*trace.stray, *trace.empty))
    for block in walk(trace.blocks):
        if block.goal_end > len(prompt):
            assert len(block.branches) == len(block.outlines)
            assert block.conclusion is not None


@quick(150)
@given(any_well_formed)
def test_every_well_formed_text_passes(case: tuple[Vocabulary, list[int]]) -> None:
    v, ids = case
    assert well_formed(v.words(ids), v.dialect)
    writer = Writer(v, ROOMY)
    for token in ids:
        if token in v.tag_ids:
            assert v.tags.role_of[token] in writer.permitted().roles
        writer.write(token)
    assert writer.permitted().end


@quick(150)
@given(any_well_formed, st.data())
def test_what_is_masked_cannot_be_mended(
    case: tuple[Vocabulary, list[int]], data: st.DataObject
) -> None:
    """The mask is exact: after a tag that it forbids no ending is well formed."""
    v, ids = case
    at = data.draw(st.integers(0, len(ids)))
    writer = Writer(v, ROOMY)
    for token in ids[:at]:
        writer.write(token)
    permitted = writer.permitted()
    for token, role in v.tags.role_of.items():
        automaton = writer.automaton.copy()
        automaton.push(token)
        attempt = Writer(v, ROOMY, [*ids[:at], token])
        attempt.finish()
        assert well_formed(v.words(attempt.ids), v.dialect) == (role in permitted.roles)


@quick(200)
@given(any_text)
def test_well_formed_is_the_grammar(case: tuple[Vocabulary, list[int]]) -> None:
    v, ids = case
    trace = parse(ids, v.tags)
    assert trace.well_formed == well_formed(v.words(ids), v.dialect)
    assert trace.well_formed == (trace.defects == [])


@quick(200)
@given(any_text, limits, st.integers(0, 15))
def test_the_mask(case: tuple[Vocabulary, list[int]], bounds: Limits, total: int) -> None:
    """Never stuck; ends outside blocks and in branches only; masks tags and EOS, nothing else."""
    v, ids = case
    automaton = Automaton(v.tags)
    automaton.feed(ids)
    permitted = allowed(automaton, bounds, total)
    assert permitted.roles or permitted.end
    assert permitted.end == (automaton.phase in (None, Phase.BRANCH))
    assert permitted.roles <= v.tags.id_of.keys()
    forbidden = forbidden_ids(v.tags, permitted, frozenset({7, 8}))
    assert len(set(forbidden)) == len(forbidden)
    assert set(forbidden) == {
        *(token for role, token in v.tags.id_of.items() if role not in permitted.roles),
        *(() if permitted.end else (7, 8)),
    }
    assert set(forbidden_ids(v.tags, permitted)) == set(forbidden) - {7, 8}


def roles_after(v: Vocabulary, text: str, bounds: Limits = ROOMY, total: int = 0) -> set[str]:
    automaton = Automaton(v.tags)
    automaton.feed(v.encode(text))
    tag_of = {role: tag for tag, role in v.dialect.roles.items()}
    return {tag_of[role] for role in allowed(automaton, bounds, total).roles}


PLAN = "<Parallel> <Goal> <Outline> x </Outline>"
TWO = PLAN + " <Outline> </Outline> </Goal>"


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("", "<Think> <Parallel>"),
        ("<Think> x", "</Think> <Parallel>"),
        ("<Think> x </Think>", "<Think> <Parallel>"),
        ("<Parallel> x", "<Goal>"),
        ("<Parallel> <Goal>", "<Outline>"),
        ("<Parallel> <Goal> <Outline> x", "</Outline>"),
        (PLAN, "<Outline> </Goal>"),
        (TWO, "<Path>"),
        (TWO + " <Path> x", "</Path> <Parallel>"),
        (TWO + " <Path> </Path> x", "<Path>"),
        (TWO + " <Path> </Path> <Path> </Path> x", "<Conclusion>"),
        (TWO + " <Path> </Path> <Path> </Path> <Conclusion> x", "</Conclusion>"),
        (TWO + " <Path> </Path> <Path> </Path> <Conclusion> </Conclusion> x", "</Parallel>"),
    ],
)
def test_multiverse_phase_by_phase(text: str, tags: str) -> None:
    assert roles_after(M, text) == set(tags.split())


def test_other_dialects_phase_by_phase() -> None:
    assert roles_after(N, "x") == {"<guideline>"}
    plan = "<guideline> <plan> </plan>"
    assert roles_after(N, plan) == {"<plan>", "</guideline>"}
    assert roles_after(N, plan + " </guideline> <step>") == {"</step>", "<guideline>"}
    assert roles_after(N, plan + " </guideline> <step> </step>") == {"<takeaway>"}
    text = plan + " </guideline> <step> </step> <takeaway> </takeaway>"
    assert roles_after(N, text) == {"<guideline>"}
    plan = "<Parallel> <Outlines> <Outline> </Outline> </Outlines>"
    assert roles_after(T, plan) == {"<Thread>"}
    assert roles_after(T, plan + " <Thread> </Thread> x") == {"</Parallel>"}
    assert roles_after(T, plan + " <Thread> </Thread> </Parallel>") == {"<Parallel>"}


def test_limits_mask_the_opening_tag() -> None:
    flat = Limits(max_depth=1, max_branches=2, max_total_branches=5)
    assert "<Parallel>" in roles_after(M, "", flat)
    assert "<Parallel>" not in roles_after(M, TWO + " <Path>", flat)
    assert "<Parallel>" not in roles_after(M, "", Limits(max_depth=0))
    assert roles_after(M, PLAN, flat) == {"<Outline>", "</Goal>"}
    assert roles_after(M, PLAN + " <Outline> </Outline>", flat) == {"</Goal>"}
    assert roles_after(M, PLAN, flat, total=4) == {"</Goal>"}
    assert "<Parallel>" not in roles_after(M, "", flat, total=5)
    # A goal begun while others took the room is not stuck: it announces one branch.
    assert roles_after(M, "<Parallel> <Goal>", flat, total=9) == {"<Outline>"}
    assert roles_after(M, PLAN, flat, total=9) == {"</Goal>"}
