"""What a command says while it runs: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import Progress, TaskID

from ..bars import EVERY, Bars


class Shown(Bars):
    """One bar per series, with the accuracy so far and the time left."""

    def bar(self, name: str, total: int, *, unit: str = "answers") -> Bar:
        task = self._progress.add_task(name, total=total, note="")
        return Bar(self._console, self._progress, task, name, total, unit)


class Bar:
    """The state of one series."""

    def __init__(
        self,
        console: Console,
        progress: Progress,
        task: TaskID,
        name: str,
        total: int,
        unit: str,
    ) -> None:
        self._console, self._progress, self._task = console, progress, task
        self._name, self._total, self._unit = name, total, unit
        self._right = self._answered = self._failed = self._found = self._done = 0
        self._begun = self._last = time.monotonic()

    def judged(self, answered: bool, right: bool, *, found: bool) -> None:
        """One sample more; `found` in the records and not asked for now."""
        self._answered += answered
        self._right += right
        self._failed += not answered
        self._found += found
        self.step()

    def step(self) -> None:
        self._done += 1
        if not self._progress.disable:
            self._progress.update(self._task, completed=self._done, note=self._note)
        elif time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            self.say()

    def say(self) -> None:
        """A line where there is no terminal."""
        if self._progress.disable:
            note = f": {self._note}" if self._note else ""
            self._console.print(
                f"{self._name}: {self._done} of {self._total} {self._unit}{note}{self._left}",
                markup=False,
                soft_wrap=True,
            )

    @property
    def _note(self) -> str:
        if not self._answered and not self._failed:
            return ""
        accuracy = f"{self._right / self._answered:.1%} right" if self._answered else "none right"
        return f"{accuracy}, {self._failed} failed" if self._failed else accuracy

    @property
    def _left(self) -> str:
        """The time left, by those that were asked for now."""
        asked = self._done - self._found
        if not asked or self._done == self._total:
            return ""
        seconds = (time.monotonic() - self._begun) / asked * (self._total - self._done)
        return f"; about {seconds / 60:.0f} min left" if seconds >= 60 else "; under a minute left"
