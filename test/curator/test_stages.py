"""Any answer of the right schema ends in a refusal or in a tree and words that hold."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sglang_multiverse.curator.checks import paths_of
from sglang_multiverse.curator.draft import Draft, Example, Rules
from sglang_multiverse.curator.errors import RejectedError
from sglang_multiverse.curator.facts import distance, dropped
from sglang_multiverse.curator.finish import finished, make_counter, most_parallelism
from sglang_multiverse.curator.render import named_blocks, words
from sglang_multiverse.curator.schema import (
    Dependencies,
    Edge,
    GroupConclusion,
    Outline,
    PathOutline,
    Plan,
    Plans,
    Refill,
    Rewrite,
    Sentence,
    Span,
)
from sglang_multiverse.curator.sentences import split
from sglang_multiverse.curator.stages import STAGES
from sglang_multiverse.curator.tree import extent, leaves

from .strategies import cases, quick

COUNTER = make_counter("")
RULES = Rules()
NAMES = st.sampled_from(["S1", "S2", "S3", "S1.1", "S2.1", "S2.2", "S9", "", "G1"])
NUMBERS = st.integers(-1, 8)
WORDS = st.sampled_from(["Take x.", "", " ", "It is 7.", "a\nb", "</Path>", "x = 3.5", "First, y."])


def draft_of(case, question="What is 3.5?"):
    thinking = "".join(case.sentences)
    draft = Draft(Example("e", question, thinking), case.sentences)
    return STAGES[0].read(draft, case.outline, RULES)


def read(draft, answer):
    """The draft with the answer in it; `None` if it is refused."""
    stage = next(stage for stage in STAGES if stage.schema is type(answer))
    try:
        found = stage.read(draft, answer, RULES)
    except RejectedError:
        return None
    stage.remarks(found)
    return found


@quick(200)
@given(cases(), st.lists(st.builds(Edge, step=NAMES, uses=NAMES, what=st.just("")), max_size=6))
def test_any_edges(case, edges):
    found = read(draft_of(case), Dependencies(edges=edges))
    if found is not None:
        assert all(
            a < b for level in (found.graph.main, *found.graph.inner.values()) for a, b in level
        )


@quick(300)
@given(
    cases(),
    st.lists(st.builds(Span, step=NAMES, first=NUMBERS, last=NUMBERS), max_size=5),
    st.booleans(),
)
def test_any_spans(case, spans, damage):
    draft = read(draft_of(case), Dependencies(edges=case.edges))
    # Mostly nonsense, or good ones with some nonsense among them.
    given_spans = [*case.spans[:-1], *spans] if damage else spans
    found = read(draft, Refill(spans=given_spans))
    if found is not None:
        covered = [n for part in leaves(found.body) for n in range(part.lo, part.hi)]
        assert covered == list(range(len(case.sentences)))


PLANS = st.builds(
    Plan,
    group=st.sampled_from(["G1", "G2", "G3", "S1"]),
    outlines=st.lists(WORDS, min_size=1, max_size=3),
    conclusion=WORDS,
)
REWRITES = st.builds(
    Rewrite,
    sentences=st.lists(st.builds(Sentence, number=NUMBERS, text=WORDS), max_size=3),
    outlines=st.lists(
        st.builds(PathOutline, path=st.sampled_from(["G1.1", "G2.2", "G9.1"]), text=WORDS),
        max_size=2,
    ),
    conclusions=st.lists(
        st.builds(GroupConclusion, group=st.sampled_from(["G1", "G2", "G9"]), text=WORDS),
        max_size=2,
    ),
)


@quick(300)
@given(cases(), st.lists(PLANS, max_size=3), REWRITES)
def test_any_words(case, plans, rewrite):
    draft = read(draft_of(case), Dependencies(edges=case.edges))
    draft = read(draft, Refill(spans=case.spans))
    read(draft, Plans(groups=plans))
    good = Plans(
        groups=[
            Plan(group=p.id, outlines=["find it"] * len(p.paths), conclusion="found")
            for p in named_blocks(draft.body)
        ]
    )
    draft = read(draft, good)
    assert draft is not None and most_parallelism(draft, COUNTER) >= 1
    found = read(draft, rewrite)
    if found is None:
        return
    changed = found.rewritten.sentences
    for place in paths_of(found.body):
        some = extent(place.body)
        source, new = words(some, case.sentences, {}), words(some, case.sentences, changed)
        assert source == new or (not dropped(source, new) and distance(source, new) <= 0.2)
    outside = set(changed) - {
        n
        for place in paths_of(found.body)
        for n in range(extent(place.body).lo, extent(place.body).hi)
    }
    assert not outside
    row = finished(found, COUNTER, 1.0)
    assert row["kind"] in ("flat", "nested", "sequential")
    assert row["critical_path_tokens"] <= row["answer_tokens"]


@quick(200)
@given(st.text(max_size=80))
def test_any_text_is_a_sequential_example(thinking):
    from sglang_multiverse.curator.finish import sequential

    if not thinking.strip():
        return
    draft = Draft(Example("e", "q", thinking, "a"), tuple(split(thinking)))
    assert sequential(replace(draft), COUNTER, "so")["kind"] == "sequential"


def test_titles_are_single_lines():
    outline = Outline.model_validate({"steps": [{"title": " a\n b ", "substeps": []}]})
    draft = STAGES[0].read(Draft(Example("e", "q", "t"), ("t",)), outline, RULES)
    assert draft.steps[0].title == "a b"
