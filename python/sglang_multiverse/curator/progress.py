"""What a run says while it runs: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console
from rich.progress import TaskID

from ..bars import EVERY, Bars
from .config import STAGE_NAMES
from .request import Reply


class Shown(Bars):
    """One bar per stage, with its tokens and failures, and the examples' fates."""

    def __init__(self, console: Console, total: int) -> None:
        super().__init__(console, width=8)
        self._total = total
        self.fates: Counter[str] = Counter()
        self._stages: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._last = time.monotonic()
        self._bars: dict[str, TaskID] = {
            name: self._progress.add_task(name, total=total, note="")
            for name in (*STAGE_NAMES, "examples")
        }

    def called(self, stage: str, reply: Reply) -> None:
        self._calls[stage] += 1
        self._tokens[stage] += reply.prompt_tokens + reply.completion_tokens
        self._say(stage)

    def stage_failed(self, stage: str) -> None:
        self._failures[stage] += 1
        self._say(stage)

    def stage_done(self, stage: str) -> None:
        self._stages[stage] += 1
        # A second round goes through the stages again, the bar does not.
        self._advance(stage, min(self._stages[stage], self._total))

    def example_done(self, status: str) -> None:
        self.fates[status] += 1
        done = sum(self.fates.values())
        said = ", ".join(f"{count} {name}" for name, count in self.fates.items())
        self._note("examples", said)
        self._advance("examples", done)
        if self._progress.disable and time.monotonic() - self._last >= EVERY:
            self._last = time.monotonic()
            tokens = sum(self._tokens.values())
            self._console.print(f"{done:,} of {self._total:,} examples: {said}; {tokens:,} tokens")

    def _say(self, stage: str) -> None:
        said = f"{self._calls[stage]:,} calls, {self._tokens[stage]:,} tokens"
        if failures := self._failures[stage]:
            said += f", {failures:,} failed"
        self._note(stage, said)

    def _note(self, bar: str, note: str) -> None:
        if not self._progress.disable:
            self._progress.update(self._bars[bar], note=note)

    def _advance(self, bar: str, completed: int) -> None:
        if not self._progress.disable:
            self._progress.update(self._bars[bar], completed=completed)
