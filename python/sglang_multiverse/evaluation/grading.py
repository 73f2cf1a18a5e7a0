"""Grading in a process of its own: a grader may take its time, set alarms, or never come back."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

from .errors import EvaluationError
from .tasks import Grade, Problem, Spec, open_task

_START = 120.0
"""Seconds until a new process must have loaded its task."""


class Verdict(NamedTuple):
    """A grade, and a note where the grader did not come to one."""

    grade: Grade
    note: str


class Grader:
    """The grader of one task, while entered. Answers wait for each other.

    An answer that takes longer than `timeout` seconds, or ends the process, is wrong and has a
    note; the next one gets a new process.
    """

    def __init__(self, spec: Spec, timeout: float) -> None:
        self._spec, self._timeout = spec, timeout
        self._worker: _Worker | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Grader:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.end()

    def prepare(self) -> _Worker:
        """Load the task, while the first answers are awaited."""
        if self._worker is None or self._worker.ended:
            self._worker = _Worker(self._spec)
        return self._worker

    async def grade(self, position: int, text: str) -> Verdict:
        """The verdict on an answer to the problem at that position.

        Raises:
            EvaluationError: the grader cannot be had.
        """
        async with self._turn:
            worker = self.prepare()
            try:
                return await asyncio.to_thread(worker.ask, position, text, self._timeout)
            except asyncio.CancelledError:
                # Its verdict would be taken for the next one's. The thread, which waits, ends it.
                self._worker = None
                worker.process.kill()
                raise


class _Worker:
    """One process that has a task open, and the pipe to it."""

    def __init__(self, spec: Spec) -> None:
        # Not forked: other threads may hold locks.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._name, self._loading = spec.name, True
        self.process = context.Process(target=_serve, args=(spec, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.ended = False

    def ask(self, position: int, text: str, timeout: float) -> Verdict:
        """Blocks until there is a verdict, or is none."""
        pipe = self._pipe
        try:
            if self._loading:
                if not pipe.poll(_START):
                    raise EvaluationError(f"task: {self._name} does not load in time")
                if said := pipe.recv():
                    raise EvaluationError(said)
                self._loading = False
            pipe.send((position, text))
            if pipe.poll(timeout):
                right, extracted, note = pipe.recv()
                return Verdict(Grade(right, extracted), note)
            note = f"the grader took more than {timeout:g} s"
        except (EOFError, OSError):
            note = "the grader's process ended"
        self.end()
        return Verdict(Grade(False, None), note)

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.process.kill()
            self.process.join()
            self._pipe.close()


def _serve(spec: Spec, pipe: Connection) -> None:
    """The grader's process: a verdict for each answer, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who interrupts the run, ends its pipe
    try:
        task = open_task(spec)
        task.prepare()
        problems: Sequence[Problem] = task.problems()
    except EvaluationError as error:
        pipe.send(str(error))
        return
    pipe.send("")
    while True:
        try:
            position, text = pipe.recv()
        except EOFError:
            return
        try:
            right, extracted = task.grade(problems[position], text)
            note = ""
        except Exception as error:  # an answer must not end the run, whatever it does to a grader
            right, extracted, note = False, None, f"the grader failed: {error!r:.200}"
        pipe.send((bool(right), extracted, note))
