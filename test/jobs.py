"""What tests wait for is begun before their turn: servers above all, which take 20 s to start.

A job is a hashable call that takes a folder of its own and an `ExitStack`, and returns what
its tests want. Jobs run in the background, one at a time, in the order in which tests need
them; when the last of its tests is done, a job's stack is closed and its folder removed.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from server import ServerJob

Job = Callable[[Path, ExitStack], Any]

# Besides the one in use. Each takes 2.3 GB of memory, and next to no time while it is idle.
SERVERS_AHEAD = 2


def job_of(item: pytest.Item) -> Job | None:
    """What `item` waits for: an `ahead` mark names it, or a `server` mark describes a server."""
    mark = item.get_closest_marker("ahead")
    if mark is not None:
        job: Job = mark.kwargs["job"]
        return job
    return server_job_of(item) if "jobs" in getattr(item, "fixturenames", ()) else None


def server_job_of(node: Any) -> ServerJob:
    """The server that the mark of a test or a module describes."""
    mark = node.get_closest_marker("server")
    return ServerJob.of(*mark.args, **mark.kwargs) if mark else ServerJob.of()


def in_order(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """First what needs no server, while the first ones start; last, by job, what waits for one.

    Between them come the tests that start servers by themselves, since they, too, leave
    a core to the jobs.
    """
    needs: dict[Job, int] = {}

    def rank(item: pytest.Item) -> int:
        job = job_of(item)
        if job is None:
            return -1 if item.get_closest_marker("server") else -2
        return needs.setdefault(job, len(needs))

    return sorted(items, key=rank)


@dataclass
class _Running:
    folder: Path
    stack: ExitStack = field(default_factory=ExitStack)
    result: Future[Any] = field(default_factory=Future)


class Jobs:
    """The jobs of one test session."""

    def __init__(self) -> None:
        self._users: Counter[Job] = Counter()
        self._running: dict[Job, _Running] = {}
        self._changed = threading.Condition()

    def begin(self, needed: Iterable[Job]) -> None:
        """Start on what tests wait for: one entry for each test, in their order."""
        self._users.update(needed)
        threading.Thread(target=self._work, args=(list(self._users),), daemon=True).start()

    def get(self, job: Job) -> Any:
        """What the job returned, or raised; runs it at once if it was not begun."""
        running, first = self._claim(job)
        if first:
            _run(job, running)
        return running.result.result()

    def peek(self, job: Job) -> Any:
        """What the job returned, or None where there is nothing."""
        running = self._running.get(job)
        if running is None or not running.result.done() or running.result.exception():
            return None
        return running.result.result()

    def done(self, job: Job) -> None:
        """One test fewer needs it."""
        self._users[job] -= 1
        if self._users[job] <= 0:
            self._end(job)

    def close(self) -> None:
        self._users.clear()
        for job in list(self._running):
            self._end(job)

    def _work(self, jobs: list[Job]) -> None:
        for job in jobs:
            with self._changed:
                self._changed.wait_for(lambda job=job: self._has_room(job))
            # Its tests may have run, or the session have ended, in the meantime.
            if self._users[job] > 0:
                running, first = self._claim(job)
                if first:
                    _run(job, running)

    def _has_room(self, job: Job) -> bool:
        servers = sum(isinstance(other, ServerJob) for other in self._running)
        return not isinstance(job, ServerJob) or servers <= SERVERS_AHEAD

    def _claim(self, job: Job) -> tuple[_Running, bool]:
        """The second value says that the caller is the first, who has to run it."""
        with self._changed:
            first = job not in self._running
            if first:
                self._running[job] = _Running(Path(tempfile.mkdtemp(prefix="job-")))
            return self._running[job], first

    def _end(self, job: Job) -> None:
        with self._changed:
            running = self._running.pop(job, None)
            self._changed.notify_all()
        if running is not None:
            running.stack.close()
            shutil.rmtree(running.folder, ignore_errors=True)


def _run(job: Job, running: _Running) -> None:
    try:
        running.result.set_result(job(running.folder, running.stack))
    except BaseException as error:
        running.result.set_exception(error)
