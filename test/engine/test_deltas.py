"""Live text: no broken characters, nothing lost, paths kept apart."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sglang_multiverse.engine.deltas import Deltas, PathText


class Bytes:
    """A token per byte, as byte-level tokenizers have at worst."""

    def decode(self, ids: list[int], **kwargs: Any) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


def test_a_character_is_held_back_until_it_is_whole() -> None:
    text = PathText(Bytes(), False)
    assert [text.push([byte]) for byte in "a€b".encode()] == ["a", "", "", "€", "b"]


@given(
    st.text(alphabet="ab é€漢😀\n", max_size=30),
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
)
def test_pieces_add_up_to_the_text(text: str, sizes: list[int]) -> None:
    path, ids, pieces = PathText(Bytes(), False), list(text.encode()), []
    turn = 0
    while ids:
        n = sizes[turn % len(sizes)]
        pieces.append(path.push(ids[:n]))
        ids, turn = ids[n:], turn + 1
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_paths_are_apart_and_in_the_order_of_generation() -> None:
    deltas = Deltas(Bytes(), False)
    first, second = "é".encode()
    for path, token in [((1,), first), ((2, 1), ord("x")), ((1,), second), ((), ord("t"))]:
        deltas.note(path, token)
    assert deltas.take() == [["2.1", "x"], ["1", "é"], ["", "t"]]
    assert deltas.take() == []
