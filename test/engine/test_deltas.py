"""What live branches send: ids, paths kept apart, in the order of generation."""

from __future__ import annotations

from sglang_multiverse.engine.deltas import Deltas


def test_paths_are_apart_and_in_the_order_of_generation() -> None:
    deltas = Deltas()
    for path, token in [((1,), 5), ((2, 1), 6), ((2, 1), 7), ((1,), 8), ((), 9)]:
        deltas.note(path, token)
    assert deltas.take() == [("1", [5]), ("2.1", [6, 7]), ("1", [8]), ("", [9])]
    assert deltas.take() == []
