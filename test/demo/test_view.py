"""The same stream in a wide terminal, in a narrow one, in a low one, and in none."""

from __future__ import annotations

import io
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from demo.pieces import PIECES
from sglang_multiverse.demo import view
from sglang_multiverse.demo.transcript import Transcript

WORDS = ("one done", "two", "ay", "bee", "ab", "both", "three", "all", "Answer: 3")


def terminal(width: int, height: int = 50) -> Console:
    return Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None
    )


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def drawn(width: int) -> list[str]:
    transcript, console = Transcript(), terminal(width)
    for path, text in PIECES:
        transcript.add(path, text)
    console.print(view.draw(transcript.trunk, width))
    return shown(console).splitlines()


@pytest.mark.parametrize("width", [16, 30, 52, 80, 200])
def test_everything_fits_and_nothing_is_lost(width: int) -> None:
    lines = drawn(width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).replace("│", " ").split())
    for word in WORDS:
        assert word in text
    assert "<" not in text  # no tags


def test_side_by_side_where_there_is_room() -> None:
    assert any("path 1 " in line and "path 2 " in line for line in drawn(80))
    assert any("path 2.1 " in line and "path 2.2 " in line for line in drawn(120))


def test_one_below_the_other_where_there_is_none() -> None:
    assert not any("path 1 " in line and "path 2 " in line for line in drawn(40))


def test_panels_are_redrawn_and_stay() -> None:
    console = terminal(80)
    with view.view_for(console) as panels:
        assert isinstance(panels, view.PanelView)
        for path, text in PIECES:
            panels.drawn = 0  # a frame for each piece
            panels.piece(path, text)
    assert "2 growing: 2.1, 2.2" in shown(console)
    last = shown(console).rpartition("growing")[2]
    assert all(word in last for word in WORDS)


def test_a_low_terminal_shows_where_the_text_grows() -> None:
    console = terminal(80, height=8)
    panels = view.PanelView(console)
    for path, text in PIECES[:12]:
        panels.transcript.add(path, text)
    console.print(panels._frame())
    lines = shown(console).splitlines()
    assert len(lines) <= 8
    assert "bee" in shown(console)


def test_a_fast_model_is_shown_in_slow_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: 5 + sum(slept), sleep=slept.append)
    monkeypatch.setattr(view, "time", clock)
    console = terminal(80)
    with view.view_for(console, pace=100) as panels:
        for path in ("", "", "1", "2", "3", "1", "2", "3", "1", "2", "3"):
            panels.drawn = 0
            panels.piece(path, "x ")
    # Of four steps, the last two wait.
    assert slept == pytest.approx([0.01, 0.01])
    assert "slow motion" in shown(console)


def test_a_slow_model_is_not_held_back() -> None:
    pacer = view.Pacer(1000)
    for _ in range(3):
        time.sleep(0.005)
        pacer.wait("")
    assert not pacer.waited


@pytest.mark.parametrize("kind", ["pipe", "dumb"])
def test_plain_lines_without_a_terminal(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb" if kind == "dumb" else "xterm")
    console = Console(file=io.StringIO(), force_terminal=kind == "dumb")
    with view.view_for(console) as lines:
        assert isinstance(lines, view.LineView)
        for path, text in PIECES:
            lines.piece(path, text)
    assert "\x1b" not in shown(console)
    text = [line.partition(" s  ")[2] for line in shown(console).splitlines()]
    assert text[:3] == ["    | Let's think in parallel.", "    | 1: first", "    | 2: second"]
    assert "2.1 | 2.1: ay" in text
    assert text[-1] == "    | Answer: 3"


def test_an_interrupted_stream_is_shown_as_far_as_it_got() -> None:
    console = Console(file=io.StringIO())
    lines = view.view_for(console).__enter__()
    lines.piece("1", "half a li")
    lines.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert "half a li" in shown(console)
