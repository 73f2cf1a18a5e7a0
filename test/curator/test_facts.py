"""Numbers, formulas and names; what was lost, made up or changed too much."""

from __future__ import annotations

import pytest

from sglang_multiverse.curator.checks import (
    path_remarks,
    paths_of,
    rewriting_problems,
    visible,
    wording_remarks,
)
from sglang_multiverse.curator.facts import distance, dropped, facts, invented
from sglang_multiverse.curator.render import Wording
from sglang_multiverse.curator.tree import Block, Text


@pytest.mark.parametrize(
    ("source", "rewritten", "lost"),
    [
        ("So 3 + 4 = 7.", "Hence 3 + 4 = 7.", []),
        ("So there are 12 of 95.", "So there are 12.", ["the number 95"]),
        ("It is 1,000.5 or 2.", "It is 1,000 or 2.", ["the number 1,000.5"]),
        ("2 and 2 are 4.", "2 is 4.", ["the number 2"]),
        ("1. Next, take 5.", "Take 5.", []),
        ("We get \\(x = 5\\).", "We get $x=5$.", []),
        ("We get \\(x^2\\).", "We get \\(x\\).", ["the formula x^2", "the number 2"]),
        ("Then x_i ≤ y.", "Then x is at most y.", ["the formula x_i", "the formula ≤"]),
        ("This is by Vieta's formulas.", "This is by formulas.", ["the name Vieta"]),
        ("By Vieta, so.", "So by Vieta's rule.", []),
        ("So the AM-GM bound holds.", "So the bound holds.", ["the name AM-GM"]),
    ],
)
def test_what_is_lost(source, rewritten, lost):
    assert dropped(source, rewritten) == lost


def test_what_is_made_up():
    assert invented("It is 25, not 3.", "x = 25") == ["3"]
    assert invented("It is 2.", "There are 25 and 2.0") == ["2"]


def test_distance_is_normalised():
    assert distance("abcd", "abcd") == 0
    assert distance("abcd", "abxd") == 0.25
    assert distance("", "abcd") == 1


def test_names_are_amid_a_sentence():
    assert set(facts("Alice asks. Then Bob, and Cauchy-Schwarz too. But I do.").names) == {
        "Bob",
        "Cauchy-Schwarz",
    }


SENTENCES = ("a0. ", "b1. ", "c2. ", "d3. ", "e4. ")
BODY = (
    Text(0, 1),
    Block(((Text(1, 2),), (Block(((Text(2, 3),), (Text(3, 4),))),))),
    Text(4, 5),
)


def test_a_path_sees_what_stands_before_it_and_no_sibling():
    seen = {
        place.id: visible("q", SENTENCES, max_of(place), place.hidden) for place in paths_of(BODY)
    }
    assert seen == {
        "G1.1": "q\na0. b1. ",
        "G1.2": "q\na0. c2. d3. ",
        "G2.1": "q\na0. c2. ",
        "G2.2": "q\na0. d3. ",
    }


def max_of(place):
    from sglang_multiverse.curator.tree import extent

    return extent(place.body).hi


def test_remarks():
    body = (Block(((Text(0, 1),), (Text(1, 2),))),)
    sentences = ("First, x.", "As the other path says.")
    wording = Wording((("Find x.", f"{'Long ' * 60}as in path 1."),), ("c" * 700,))
    said = wording_remarks(sentences, body, wording) + path_remarks(sentences, body, {})
    assert said == [
        "the outline of G1.2: is long; say only what is to be found",
        "the outline of G1.2: speaks of 'path 1'",
        "the conclusion of G1: is long; say only what was found",
        "G1.1: begins with 'First,', as one of a sequence",
        "G1.2: speaks of 'the other path'",
    ]
    for order in (
        "Again, x.",
        "The only case left is x.",
        "Another way: x.",
        "the last options are",
    ):
        assert [r[:4] for r in path_remarks(sentences, body, {0: order, 1: "y"})] == ["G1.1"]
    for plain in ("Take x.", "The last digit is 3.", "Another prime is 5.", "Againward x."):
        assert path_remarks(sentences, body, {0: plain, 1: "As y says."}) == []


def test_a_path_takes_no_number_from_a_sibling():
    sentences = ("There are 20. ", "Take 7. ", "Take x. ", "Then y. ", "So.")
    inner = Block(((Text(2, 3),), (Text(3, 4),)))
    body = (Text(0, 1), Block(((Text(1, 2),), (inner,))), Text(4, 5))

    def problems(changed):
        return rewriting_problems("What of 5?", sentences, body, changed, 1.0)

    assert problems({2: "Take x of 20.", 3: "Then y is 5."}) == []
    unseen = "the number 7 is in nothing that this path can see"
    assert problems({2: "Take x as 7."}) == [f"G1.2: {unseen}", f"G2.1: {unseen}"]
    # A path inside another sees neither its own siblings nor those of the outer one.
    assert f"G2.2: {unseen}" in problems({3: "Then y is 7."})
    assert "G2.2: the number 9" in str(problems({2: "Take x as 9.", 3: "Then 9 as well."}))
