"""Branches on a terminal: panels that grow side by side, or plain lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.segment import Segment
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from .transcript import TAG, Block, Branch, Transcript

_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
_MIN_COLUMN = 26  # narrower panels wrap every other word
_FRAME_SECONDS = 1 / 25


class View(Protocol):
    """What a stream is shown on; a context manager around the stream."""

    def __enter__(self) -> View: ...

    def __exit__(self, *args: object) -> None: ...

    def piece(self, path: str, text: str) -> None:
        """New text of a branch."""


def view_for(console: Console, pace: float = 0) -> View:
    """`pace` is the most steps a second that panels show; 0 is as they come."""
    if console.is_terminal and not console.is_dumb_terminal:
        return PanelView(console, pace)
    return LineView(console)


class PanelView:
    """Redraws the whole answer several times a second, and leaves it on the screen."""

    def __init__(self, console: Console, pace: float = 0) -> None:
        self.console = console
        self.pacer = Pacer(pace)
        self.transcript = Transcript()
        self.drawn = time.monotonic()
        # No thread of its own draws: the transcript must not change under it.
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.spinner = Spinner("dots")

    def __enter__(self) -> PanelView:
        self.live.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.live.stop()
        self.console.print(draw(self.transcript.trunk, self.console.width))

    def piece(self, path: str, text: str) -> None:
        self.pacer.wait(path)
        self.transcript.add(path, text)
        now = time.monotonic()
        if now - self.drawn >= _FRAME_SECONDS:
            self.drawn = now
            self.live.update(self._frame(), refresh=True)

    def _frame(self) -> RenderableType:
        names = [branch.name for branch in self.transcript.growing]
        doing = f"{len(names)} growing: {', '.join(names)}" if names else "one sequence"
        text = Text(f" {doing}", style="bold")
        if self.pacer.waited:
            text.append("   slow motion", style="dim")
        self.spinner.update(text=text)
        body = draw(self.transcript.trunk, self.console.width)
        return Group(Tail(body, self.console.height - 2), self.spinner)


class Pacer:
    """Holds back a model that is faster than the eye.

    A step gives every branch that grows one piece, so it is over when a path
    comes again. The pieces that wait do so in the socket; the server goes on.
    """

    def __init__(self, pace: float) -> None:
        self.seconds = 1 / pace if pace else 0.0
        self.waited = False
        self.step: set[str] = set()
        self.next = 0.0

    def wait(self, path: str) -> None:
        """Until a piece of this path may be shown."""
        if path not in self.step:
            self.step.add(path)
            return
        self.step = {path}
        late = self.next - time.monotonic()
        if late > 0:
            self.waited = True
            time.sleep(late)
        self.next = time.monotonic() + self.seconds


class LineView:
    """One line of output for every line that a branch has finished."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.start = time.monotonic()
        self.unfinished: dict[str, str] = {}

    def __enter__(self) -> LineView:
        self.start = time.monotonic()
        return self

    def __exit__(self, *args: object) -> None:
        for path, rest in self.unfinished.items():
            self._line(path, rest)

    def piece(self, path: str, text: str) -> None:
        *lines, rest = (self.unfinished.get(path, "") + text).split("\n")
        self.unfinished[path] = rest
        for line in lines:
            self._line(path, line)

    def _line(self, path: str, line: str) -> None:
        if plain := TAG.sub("", line).strip():
            seconds = time.monotonic() - self.start
            self.console.print(
                f"{seconds:6.2f} s  {path:<4}| {plain}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


class Tail:
    """The last lines of what is inside: where the text grows, in a terminal that is too small."""

    def __init__(self, inside: RenderableType, height: int) -> None:
        self.inside, self.height = inside, max(height, 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        lines = console.render_lines(self.inside, options.update(height=None), pad=False)
        for line in lines[-self.height :]:
            yield from line
            yield Segment.line()


def draw(branch: Branch, width: int) -> RenderableType:
    """A branch in `width` columns: its text, and its blocks as panels side by side."""
    parts: list[RenderableType] = []
    for at, part in enumerate(branch.parts):
        if isinstance(part, Block):
            parts.append(_side_by_side(list(part), width))
        elif plain := _plain(part, branch.name):
            # Before a block stands its plan, which the branches are about to repeat.
            is_plan = at + 1 < len(branch.parts)
            parts.append(Text(plain, style="dim" if is_plan else ""))
    return Group(*parts)


def _side_by_side(branches: list[Branch], width: int) -> Table:
    most = max(1, min(len(branches), width // _MIN_COLUMN))
    rows = -(-len(branches) // most)
    columns = -(-len(branches) // rows)
    grid = Table.grid(expand=True)
    for _ in range(columns):
        grid.add_column(ratio=1)
    for start in range(0, len(branches), columns):
        row = branches[start : start + columns]
        grid.add_row(*(_panel(branch, width // columns) for branch in row))
    return grid


def _panel(branch: Branch, width: int) -> Panel:
    colour = _COLOURS[(branch.path[-1] - 1) % len(_COLOURS)]
    mark = " ✓" if branch.closed else " …" if branch.growing else ""
    return Panel(
        draw(branch, width - 4),  # a border and a space on either side
        title=f"path {branch.name}{mark}",
        title_align="left",
        border_style=f"dim {colour}" if branch.closed else f"bold {colour}",
    )


def _plain(text: str, label: str) -> str:
    """Without tags, empty lines, and the label that the panel's title already shows."""
    lines = (line.strip() for line in TAG.sub("", text).split("\n"))
    plain = "\n".join(line for line in lines if line)
    return plain.removeprefix(f"{label}:").lstrip() if label else plain
