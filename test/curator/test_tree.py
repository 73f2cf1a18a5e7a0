"""Trees: lossless, well formed, and refused where an answer is not what it must be."""

from __future__ import annotations

import pytest
from hypothesis import given

from sglang_multiverse.curator.errors import RejectedError
from sglang_multiverse.curator.finish import make_counter
from sglang_multiverse.curator.render import Wording, check_structure, render, skeleton
from sglang_multiverse.curator.schema import Edge, MainStep, Outline, Span
from sglang_multiverse.curator.sentences import split
from sglang_multiverse.curator.steps import make_graph, number_steps
from sglang_multiverse.curator.tree import (
    Block,
    Limits,
    Text,
    grow,
    leaves,
    place_sentences,
    source_text,
    walk_blocks,
)
from sglang_multiverse.structure import MULTIVERSE, break_tags
from sglang_multiverse.training.data import sequential_text
from sglang_multiverse.training.data.blocks import OPENING

from .strategies import cases, quick

COUNTER = make_counter("")


def grown(case, limits=None):
    steps = number_steps(case.outline)
    graph = make_graph(steps, case.edges)
    places = place_sentences(steps, case.spans, len(case.sentences))
    return grow(steps, graph, places, [len(s) for s in case.sentences], limits or Limits())


@quick(300)
@given(cases())
def test_lossless_and_well_formed(case):
    body = grown(case)
    assert source_text(body, case.sentences) == "".join(case.sentences)
    covered = [n for part in leaves(body) for n in range(part.lo, part.hi)]
    assert covered == list(range(len(case.sentences)))

    blocks = list(walk_blocks(body))
    wording = Wording(tuple(("o",) * len(b.paths) for b in blocks), ("c",) * len(blocks))
    text = render(body, case.sentences, wording)
    tokens, statistics = check_structure(text, body, COUNTER.tokenizer, COUNTER.tags)
    assert statistics.blocks == len(blocks) and tokens == statistics.tokens

    # What is left without structure is the source, word for word.
    bare = sequential_text(render(body, case.sentences, skeleton(body)))
    words = bare.replace(OPENING, "").split()
    labels = sum(len(b.paths) for b in blocks) * 2
    meant = break_tags("".join(case.sentences), MULTIVERSE).split()
    assert len(words) == len(meant) + labels
    assert [word for word in words if not word.endswith(":")] == [
        word for word in meant if not word.endswith(":")
    ]


@quick(100)
@given(cases())
def test_limits_hold(case):
    body = grown(case, Limits(paths=2, depth=1))
    for block in walk_blocks(body):
        assert len(block.paths) == 2
        assert not any(isinstance(part, Block) for path in block.paths for part in path)
    assert source_text(body, case.sentences) == "".join(case.sentences)


OUTLINE = Outline(
    steps=[
        MainStep(title="a", substeps=[]),
        MainStep(title="b", substeps=["c", "d"]),
        MainStep(title="e", substeps=[]),
    ]
)
STEPS = number_steps(OUTLINE)


def spans(*given):
    return [Span(step=name, first=first, last=last) for name, first, last in given]


GOOD = (("S1", 1, 2), ("S2", 3, 3), ("S2.1", 4, 4), ("S2.2", 5, 6), ("S3", 7, 8))


def test_good_spans():
    places = place_sentences(STEPS, spans(*GOOD), 8)
    assert places["S2"] == Text(2, 3) and places["S3"] == Text(6, 8)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"S3": ("S3", 7, 9)}, "there are sentences 1 to 8"),
        ({"S1": ("S1", 0, 2)}, "S1 is 0 to 2"),
        ({"S1": ("S1", 2, 1)}, "first is at most last"),
        ({"S3": ("S3", 7, 7)}, "sentences 8 to 8 are left out at the end"),
        ({"S2": None}, "before S2.1, which must start at 3, unless they are S2's own"),
        ({"S2.2": ("S2.2", 6, 6)}, "sentences 5 to 5 are left out before S2.2, which must start"),
        ({"S2.2": ("S2.2", 4, 6)}, "sentences 4 to 4 are given twice before S2.2"),
        ({"S3": ("S4", 7, 8)}, "there is no step 'S4'"),
        ({"S3": None}, "S3 has none"),
        ({"S2.1": ("S2.2", 4, 4), "S2.2": ("S2.1", 5, 6)}, "S2.1 is out of order"),
        ({"S3": ("S2.2", 7, 8)}, "S2.2 is there twice"),
    ],
)
def test_bad_spans_are_named(changed, said):
    some = [changed.get(span[0], span) for span in GOOD]
    with pytest.raises(RejectedError, match=said):
        place_sentences(STEPS, spans(*[span for span in some if span]), 8)


@pytest.mark.parametrize(
    ("step", "uses", "said"),
    [
        ("S9", "S1", "no step 'S9'"),
        ("S3", "S2.3", "no step 'S2.3'"),
        ("S1", "S1", "uses itself"),
        ("S2.1", "S2", "one is a part of the other"),
        ("S2", "S2.1", "one is a part of the other"),
        ("S1", "S3", "S1 uses S3, which stands after it"),
        ("S2.1", "S2.2", "no cycles"),
    ],
)
def test_bad_edges_are_named(step, uses, said):
    with pytest.raises(RejectedError, match=said):
        make_graph(STEPS, [Edge(step=step, uses=uses, what="")])


def test_edges_count_where_their_ends_have_siblings():
    edges = [("S3", "S2.1"), ("S2.2", "S1"), ("S2.2", "S2.1")]
    graph = make_graph(STEPS, [Edge(step=a, uses=b, what="") for a, b in edges])
    assert graph.main == {(1, 2), (0, 1)}
    assert graph.inner["S2"] == {(0, 1)}


@pytest.mark.parametrize(
    "outline", [Outline(steps=[]), Outline(steps=[MainStep(title=" ", substeps=[])])]
)
def test_empty_outlines_are_refused(outline):
    with pytest.raises(RejectedError, match=r"steps: there is none|S1: has no title"):
        number_steps(outline)


def test_too_many_steps_are_refused():
    many = Outline(steps=[MainStep(title="a", substeps=["b"] * 61)])
    with pytest.raises(RejectedError, match="61 at one level; give at most 60"):
        number_steps(many)


def test_a_text_that_is_not_what_the_tree_says_is_refused():
    body = (Block(((Text(0, 1),), (Text(1, 2),))),)
    sentences = ("a. ", "b.")
    good = render(body, sentences, Wording((("x", "y"),), ("z",)))
    check_structure(good, body, COUNTER.tokenizer, COUNTER.tags)
    for broken in (good.replace("</Path>", "", 1), f"{good}\n{good}"):
        with pytest.raises(RejectedError):
            check_structure(broken, body, COUNTER.tokenizer, COUNTER.tags)


def test_tags_in_a_source_are_text():
    case_sentences = tuple(split("Here is <Path> and </Conclusion>. And <Parallel> too."))
    body = (Text(0, len(case_sentences)),)
    text = render(body, case_sentences, Wording((), ()))
    assert check_structure(text, body, COUNTER.tokenizer, COUNTER.tags)[1].blocks == 0
    assert "<\u2060Path>" in text
