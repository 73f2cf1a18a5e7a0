"""Fills a series: every sample that is not in the records is asked for, graded and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from .client import Client
from .config import RunConfig
from .errors import RefusedError, TroubleError
from .grading import Grader
from .progress import Shown
from .series import Series
from .store import Sample, Store, answered
from .tasks import Problem
from .together import together

Reuse = Callable[[Problem, int], tuple[Sample, str, str] | None]
"""A sample, its text and its reasoning from elsewhere, where one will do."""


class Collector:
    """Asks one endpoint about one task."""

    def __init__(
        self,
        config: RunConfig,
        client: Client,
        store: Store,
        grader: Grader,
        problems: Sequence[Problem],
        shown: Shown,
    ) -> None:
        self._config, self._client, self._store = config, client, store
        self._grader, self._problems, self._shown = grader, problems, shown

    async def fill(self, series: Series, name: str, reuse: Reuse | None = None) -> int:
        """All samples of a series, `concurrency` at a time; its number in the store.

        Raises:
            EvaluationError: the endpoint or the grader is gone. What was answered is kept.
        """
        samples = self._config.samples
        number = self._store.begin(series, self._problems, samples)
        bar = self._shown.bar(name, len(self._problems) * samples)
        left: list[tuple[int, int, str]] = []
        for index in range(samples):  # each problem once before any twice
            for position, problem in enumerate(self._problems):
                key = series.sample_key(problem, index)
                if not self._wanted(key):
                    found = self._store.sample(key)
                    assert found is not None
                    bar.judged(found.status == "answered", found.right, found=True)
                elif (other := reuse and reuse(problem, index)) is not None:
                    self._store.keep(key, *other)
                    bar.judged(True, other[0].right, found=True)
                else:
                    left.append((position, index, key))

        async def work(queue: Iterator[tuple[int, int, str]]) -> None:
            for position, index, key in queue:
                sample = await self._one(series, position, index, key)
                bar.judged(sample.status == "answered", sample.right, found=False)

        if left:
            self._grader.prepare()
        queue = iter(left)
        await together(work(queue) for _ in range(min(self._config.concurrency, len(left))))
        bar.say()
        return number

    def _wanted(self, key: str) -> bool:
        status = self._store.status(key)
        return status is None or (status == "failed" and self._config.retry_failed)

    async def _one(self, series: Series, position: int, index: int, key: str) -> Sample:
        problem = self._problems[position]
        try:
            answer = await self._client.ask(series.body(problem, index))
        except RefusedError as error:
            sample = Sample("failed", why=f"refused: {error}", tries=1)
            self._store.keep(key, sample)
            return sample
        except TroubleError as error:
            # A sample fails only while the endpoint is there; else the command ends and goes on
            # from here later.
            await self._client.first_model(series.model)
            sample = Sample("failed", why=str(error), tries=self._config.retries + 1)
            self._store.keep(key, sample)
            return sample
        grade, note = await self._grader.grade(position, answer.text)
        sample = answered(answer, grade, note)
        self._store.keep(key, sample, answer.text, answer.reasoning)
        return sample
