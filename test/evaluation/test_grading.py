"""Graders that hang, die or raise cost one answer and not the run."""

from __future__ import annotations

import pytest

from sglang_multiverse.evaluation import grading
from sglang_multiverse.evaluation.errors import EvaluationError
from sglang_multiverse.evaluation.grading import Grader
from sglang_multiverse.evaluation.tasks import Grade, Problem, Spec


class Moody:
    """Does what the answer tells it to."""

    def prepare(self):
        pass

    def problems(self):
        return [Problem("0", [], "7"), Problem("1", [], "8")]

    def grade(self, problem, text):
        import os
        import time

        if text == "hang":
            time.sleep(60)
        if text == "die":
            os._exit(3)
        if text == "raise":
            raise ZeroDivisionError("oops")
        return Grade(text == problem.reference, text)


@pytest.fixture
def moody(monkeypatch):
    """In forked processes, which take the patched task along."""
    monkeypatch.setattr(grading, "open_task", lambda spec: Moody())
    monkeypatch.setattr(
        grading.multiprocessing, "get_context", lambda how: real("fork"), raising=True
    )
    return Spec("moody")


real = grading.multiprocessing.get_context


async def test_every_mood(moody):
    async with Grader(moody, 0.5) as grader:
        seen = [
            await grader.grade(position, text)
            for position, text in [
                *((0, "7"), (1, "7"), (0, "hang"), (1, "8"), (0, "die")),
                *((0, "7"), (0, "raise"), (1, "8")),
            ]
        ]
    assert [verdict.grade.right for verdict in seen] == [
        *(True, False, False, True, False),
        *(True, False, True),
    ]
    assert [verdict.note for verdict in seen if verdict.note] == [
        "the grader took more than 0.5 s",
        "the grader's process ended",
        "the grader failed: ZeroDivisionError('oops')",
    ]


async def test_a_process_that_hangs_is_ended(moody):
    async with Grader(moody, 0.3) as grader:
        worker = grader.prepare()
        assert (await grader.grade(0, "hang")).grade == Grade(False, None)
        assert worker.process.exitcode is not None
        assert grader.prepare() is not worker


async def test_one_that_is_given_up_answers_nobody_else(moody):
    """A verdict of which nobody knows any more is not the next one's."""
    import asyncio

    async with Grader(moody, 30) as grader:
        assert (await grader.grade(0, "7")).grade.right
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await grader.grade(0, "hang")
        assert (await grader.grade(1, "8")).grade == Grade(True, "8")


async def test_a_task_that_cannot_be_opened():
    async with Grader(Spec("nothing"), 5) as grader:
        with pytest.raises(EvaluationError, match="'nothing' is not one of"):
            await grader.grade(0, "7")
