"""Progress bars of a long command: on a terminal; elsewhere a line now and then."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

EVERY = 10.0
"""Seconds between lines where there is no terminal."""


class Bars:
    """Bars with a name, a count, a note and the time left, while entered.

    Args:
        width: of the names, which are set to the right.
    """

    def __init__(self, console: Console, *, width: int = 0) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn(f"{{task.description:>{width}}}" if width else "{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=4,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()
