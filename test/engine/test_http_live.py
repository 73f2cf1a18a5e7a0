"""Live text: all that the paths' ids are decoded to, less what ended the answer."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sglang_multiverse.engine.http.live import LiveText, PathText

LENGTH = {"type": "length", "length": 9}


@pytest.fixture(scope="module")
def tok(tiny_tokenizer: Any) -> Any:
    return tiny_tokenizer


def live(tok: Any, skip: bool = False, **kwargs: Any) -> LiveText:
    tag = tok.convert_tokens_to_ids("<Goal>")
    return LiveText(tok.backend_tokenizer, tag, skip_special=skip, **kwargs)


def whole(tok: Any, ids: list[int], skip: bool = False) -> str:
    return str(tok.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False))


def byte_ids(tok: Any, text: str) -> list[int]:
    """One token per byte, as byte-level tokenizers have at worst."""
    from tokenizers.pre_tokenizers import ByteLevel

    pieces = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return [tok.convert_tokens_to_ids(letter) for piece, _ in pieces for letter in piece]


def test_a_character_is_held_back_until_it_is_whole(tok: Any) -> None:
    text = live(tok)
    pieces = [text.push([("", [i])], None) for i in byte_ids(tok, "a€b")]
    assert pieces == [[["", "a"]], [], [], [["", "€"]], [["", "b"]]]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pieces_add_up_to_the_text(tok: Any, data: st.DataObject) -> None:
    """Any ids, broken characters and special tokens included."""
    skip = data.draw(st.booleans())
    seed, n = data.draw(st.integers(0, 10**6)), data.draw(st.integers(1, 60))
    drawn = random.Random(seed)
    eager = byte_ids(tok, "é€漢😀")
    ids = [drawn.choice((drawn.randrange(len(tok)), drawn.choice(eager))) for _ in range(n)]
    text, pieces = live(tok, skip), []
    for token in ids[:-1]:
        pieces += text.push([("1", [token])], None)
    pieces += text.push([("1", ids[-1:])], LENGTH)
    assert "".join(piece for _, piece in pieces) == whole(tok, ids, skip)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="abc", min_size=1, max_size=30), st.integers(0, 4))
def test_a_stop_string_is_never_seen_and_nothing_else_is_lost(
    tok: Any, text: str, step: int
) -> None:
    stops = ["abc", "cab", "bb"]
    ids, sent, answer = byte_ids(tok, text), "", ""
    stream = live(tok, stops=stops)
    for place, token in enumerate(ids, start=1):
        answer += text[place - 1]
        # As SGLang reports it: the first of the list that the text now holds.
        matched = next((stop for stop in stops if stop in answer), None)
        last = place == len(ids)
        finish = {"type": "stop", "matched": matched} if matched else LENGTH if last else None
        sent += "".join(piece for _, piece in stream.push([("", [token])], finish))
        if matched:
            assert sent == answer[: answer.find(matched)]
            return
        assert answer.startswith(sent)
    assert sent == text


def test_a_stop_string_that_ended_a_branch_stays_in_it(tok: Any) -> None:
    text, close = live(tok, stops=["xy"]), tok.convert_tokens_to_ids("</Path>")
    ids = byte_ids(tok, "wxy")
    assert text.push([("1", ids)], None) == [["1", "w"]]
    assert text.push([("1", [close])], None) == [["1", "xy</Path>"]]
    ids = byte_ids(tok, "uxy")
    assert text.push([("", ids)], {"matched": "xy"}) == [["", "u"]]


@pytest.mark.parametrize("no_stop_trim", [False, True])
def test_what_ended_the_answer_is_cut_off_unless_asked_for(tok: Any, no_stop_trim: bool) -> None:
    end = tok.eos_token_id
    text = live(tok, no_stop_trim=no_stop_trim)
    got = text.push([("1", [end]), ("", [*byte_ids(tok, "a"), end])], {"matched": end})
    assert got == [["1", tok.eos_token], ["", "a" + tok.eos_token * no_stop_trim]]

    text = live(tok, no_stop_trim=no_stop_trim, stops=["bc", "d"])
    got = text.push([("", byte_ids(tok, "abc"))], {"matched": "bc"})
    assert got == [["", "a" + "bc" * no_stop_trim]]


def test_only_the_path_that_ended_the_answer_is_cut(tok: Any) -> None:
    text = live(tok, stops=["ab"])
    assert text.push([("1", byte_ids(tok, "xa"))], None) == [["1", "x"]]
    got = text.push([("2", byte_ids(tok, "zab")), ("1", byte_ids(tok, "b"))], {"matched": "ab"})
    assert got == [["2", "zab"]]


def test_ids_that_the_stream_decoder_refuses_are_decoded_all_the_same(tok: Any) -> None:
    class Refuses:
        def step(self, tokenizer: Any, token: int) -> str:
            raise ValueError("Invalid prefix encountered")

    tag = tok.convert_tokens_to_ids("<Goal>")
    path = PathText(tok.backend_tokenizer, tag, False, ())
    first, second, third = byte_ids(tok, "aé")
    assert path.push(first) == "a"
    assert path.push(second) == ""
    path._stream = Refuses()
    assert path.push(third) == "é"
    assert path.push(first) == "a"
