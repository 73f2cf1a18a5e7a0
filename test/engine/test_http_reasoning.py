"""`--reasoning-parser multiverse`: what is reasoning, whole and in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_multiverse.engine.http.reasoning import NAME, Splitter, register_parser

CASES = {
    "plain": ("", "plain"),
    "<Think>why</Think>so": ("why", "so"),
    "a<Parallel>b</Parallel>c": ("<Parallel>b</Parallel>", "ac"),
    "<Parallel><Path><Parallel>x</Parallel></Path></Parallel>y": (
        "<Parallel><Path><Parallel>x</Parallel></Path></Parallel>",
        "y",
    ),
    "<Think>a<Parallel>b</Parallel>c</Think>d": ("a<Parallel>b</Parallel>c", "d"),
    "<Think>cut <Parallel>off": ("cut <Parallel>off", ""),
    "1 < 2</Parallel> <Thin": ("", "1 < 2</Parallel> <Thin"),
}


@pytest.mark.parametrize("text", CASES)
def test_whole(text):
    assert Splitter().push(text, last=True) == CASES[text]


@given(st.sampled_from(sorted(CASES)), st.lists(st.integers(1, 9), min_size=1))
def test_in_pieces_it_is_the_same(text, sizes):
    splitter, reasoning, content, turn = Splitter(), "", "", 0
    rest = text
    while rest:
        n = sizes[turn % len(sizes)]
        piece, rest, turn = rest[:n], rest[n:], turn + 1
        new = splitter.push(piece)
        reasoning, content = reasoning + new[0], content + new[1]
    new = splitter.push("", last=True)
    assert (reasoning + new[0], content + new[1]) == CASES[text]


def test_sglangs_registry_knows_it():
    from sglang.srt.parser.reasoning_parser import ReasoningParser

    register_parser()
    text = "<Think>why</Think>so"
    assert ReasoningParser(NAME).parse_non_stream(text) == ("why", "so")
    parser = ReasoningParser(NAME, force_reasoning=True)
    told = [parser.parse_stream_chunk(letter) for letter in text]
    told.append(parser.parse_stream_end())
    assert tuple("".join(parts) for parts in zip(*told, strict=True)) == ("why", "so")
