"""Pieces of a stream end up where the linear form has them."""

from __future__ import annotations

from demo.pieces import LINEAR, PIECES
from sglang_multiverse.demo.transcript import Transcript


def test_the_linear_form() -> None:
    transcript = Transcript()
    for path, text in PIECES:
        transcript.add(path, text)
    assert transcript.text == LINEAR


def test_names_start_again_in_the_next_block() -> None:
    transcript = Transcript()
    for path, text in PIECES:
        transcript.add(path, text)
    blocks = [part for part in transcript.trunk.parts if not isinstance(part, str)]
    assert [[branch.name for branch in block] for block in blocks] == [["1", "2"], ["1"]]


def test_who_grows() -> None:
    transcript, growing = Transcript(), []
    for path, text in PIECES:
        transcript.add(path, text)
        growing.append([branch.name for branch in transcript.growing])
    assert growing[:2] == [[], []]
    assert growing[5] == ["1", "2"]
    assert growing[6] == ["2"]  # 1 is closed
    assert growing[9] == ["2.1", "2.2"]  # 2 waits for its own branches
    assert growing[12:15] == [[], [], []]


def test_a_tenth_branch_follows_the_ninth() -> None:
    transcript = Transcript()
    for number in (10, 9, 1):
        transcript.add(str(number), f"{number},")
    assert transcript.text == "1,9,10,"
