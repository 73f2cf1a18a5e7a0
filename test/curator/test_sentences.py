"""The splitter: nothing is lost, and nothing that belongs together is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_multiverse.curator.sentences import formulas, numbered, protected, split

from .strategies import quick
from .test_round_trip import known, with_traces

SIGNS = st.sampled_from(
    [
        *("\n", "\n\n", " ", ". ", "? ", "A", "b", "1.", "- ", "e.g. ", "no. ", "<Path>", "(", ")"),
        *("$", "$$", "\\(", "\\)", "\\[", "\\]", "\\begin{a}", "```", "`", "“", "”"),
        *("é", "𝑥", "\r", "\u2028"),
    ]
)


@quick(500)
@given(st.lists(SIGNS, max_size=40).map("".join) | st.text(max_size=60))
def test_nothing_is_lost(text):
    pieces = split(text)
    assert "".join(pieces) == text
    assert all(piece.strip() for piece in pieces) or not text.strip()
    assert (not pieces) == (not text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One. ", "Two! ", "Three?"]),
        ("Dr. Smith, e.g. here, saw Fig. 3. Yes.", ["Dr. Smith, e.g. here, saw Fig. 3. ", "Yes."]),
        ("It is 3.5, not 3. So.", ["It is 3.5, not 3. ", "So."]),
        ("Wait, no. Let x = m. Let y = 2.", ["Wait, no. ", "Let x = m. ", "Let y = 2."]),
        ("Then \\[a. B\n= c. D\\] holds. Next.", ["Then \\[a. B\n= c. D\\] holds. ", "Next."]),
        ("Now $a. B$ and $5 and $6. Next.", ["Now $a. B$ and $5 and $6. ", "Next."]),
        ("Run\n```py\na. B\n\nC. D\n```\nDone.", ["Run\n", "```py\na. B\n\nC. D\n```\n", "Done."]),
        ("1. One. Two.\n2. Three.", ["1. One. ", "Two.\n", "2. Three."]),
        ("Steps: 1. Add. 2. Subtract.", ["Steps: 1. Add. ", "2. Subtract."]),
        ("(a) First. (b) Then.", ["(a) First. ", "(b) Then."]),
        ("It (see A. Then B.) is. So.", ["It (see A. Then B.) is. ", "So."]),
        (
            'An unclosed ( bracket. And a " quote. End.',
            ["An unclosed ( bracket. ", 'And a " quote. ', "End."],
        ),
        ("A line\nand another\n\nand one more", ["A line\n", "and another\n\n", "and one more"]),
        ("  lead. Then", ["  lead. ", "Then"]),
        (
            "\\begin{align}\na. B\n\\end{align}\nSo.",
            ["\\begin{align}\na. B\n\\end{align}\n", "So."],
        ),
        (
            "What? Yes... Well. 好的。然后呢？",
            ["What? ", "Yes... ", "Well. ", "好的。", "然后呢？"],
        ),
    ],
)
def test_by_hand(text, expected):
    assert split(text) == expected


@with_traces
def test_real_chains_are_cut_into_sentences():
    lengths = []
    for one in known().values():
        pieces = split(one.chain)
        assert "".join(pieces) == one.chain
        lengths += [len(piece) for piece in pieces]
    # An unclosed bracket or a single letter used to make sentences of 13,000 characters.
    assert len(lengths) > 7000 and max(lengths) < 700
    lengths.sort()
    assert 40 < lengths[len(lengths) // 2] < 90


def test_numbers_count_from_one():
    assert numbered(["A.\n", "B. "]) == "[1] A.\n[2] B."


def test_formulas_are_found_with_their_signs():
    text = "`code` $x$ and \\(y\\), \\[z\\] $$w$$ \\begin{a}v\\end{a}"
    assert formulas(text) == ["$x$", "\\(y\\)", "\\[z\\]", "$$w$$", "\\begin{a}v\\end{a}"]
    assert len(protected(text)) == 6
