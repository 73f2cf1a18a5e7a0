"""Times endpoints at growing batch sizes, the ways in turns: disturbances hit all alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ..records import digest
from .client import Client
from .commands import connect, note, note_server, problems_of, specs
from .config import LatencyConfig
from .errors import RefusedError, TroubleError
from .grading import Grader
from .progress import Shown
from .series import Series, make_series
from .store import Store
from .tasks import Problem, about
from .together import together


def answers_of(config: LatencyConfig, size: int) -> int:
    """Answers of a block: two or more of each client, so that most time passes at full size."""
    return max(config.answers, 2 * size)


@dataclass(frozen=True, slots=True)
class Way:
    """One of what is compared: an endpoint, and how it is asked."""

    name: str
    client: Client
    series: Series


async def latency(config: LatencyConfig, out: Path, command: str, console: Console) -> None:
    """All batch sizes, all ways, all rounds, into the store below `out`.

    Raises:
        EvaluationError: what was measured until then is kept.
    """
    (spec,) = specs(config)
    # Each client has its own problems, the same in all ways and rounds; a task with fewer repeats.
    if not config.limit:
        spec = replace(spec, limit=answers_of(config, max(config.batch_sizes)))
    problems = problems_of(spec)
    async with AsyncExitStack() as stack:
        ways = await _ways(config, stack)
        store = stack.enter_context(Store(out))
        note(store, "latency", command)
        for way in ways:
            await note_server(store, way.name, way.client)
        flushed = config.flush and all([await way.client.flush() for way in ways])
        store.keep_fact(
            "latency",
            {
                "task": spec.name,
                "models": {way.name: way.series.model for way in ways},
                "ways": [way.name for way in ways],
                "batch_sizes": list(config.batch_sizes),
                "rounds": config.rounds,
                "answers": config.answers,
                "problems": len(problems),
                "caches_emptied": flushed,
                "series": {way.name: asdict(way.series) for way in ways},
            },
        )
        grader = await stack.enter_async_context(Grader(spec, config.grade_timeout))
        shown = stack.enter_context(Shown(console))
        measuring = _Measuring(config, store, grader, problems, ways, flushed)
        await measuring.all_sizes(shown)


async def _ways(config: LatencyConfig, stack: AsyncExitStack) -> list[Way]:
    (spec,) = specs(config)
    client = await stack.enter_async_context(connect(config, config.base_url))
    model = await client.first_model(config.model)
    whole = make_series(config, spec, model, about(spec.name).max_tokens, role="parallel")
    alone = {**whole.multiverse, "max_parallel_branches": 1}
    ways = [Way("parallel", client, whole)]
    if config.one_at_a_time:
        ways.append(Way("one at a time", client, replace(whole, multiverse=alone)))
    if config.baseline_url:
        other = await stack.enter_async_context(connect(config, config.baseline_url))
        model = await other.first_model(config.baseline_model)
        series = make_series(config, spec, model, about(spec.name).max_tokens, role="baseline")
        ways.append(Way("sequential", other, series))
    return ways


class _Measuring:
    """The rounds of one measurement."""

    def __init__(
        self,
        config: LatencyConfig,
        store: Store,
        grader: Grader,
        problems: Sequence[Problem],
        ways: Sequence[Way],
        flushed: bool,
    ) -> None:
        self._config, self._store, self._grader = config, store, grader
        self._problems, self._ways, self._flushed = problems, ways, flushed

    async def all_sizes(self, shown: Shown) -> None:
        config, position = self._config, 0
        for size in config.batch_sizes:
            bar = shown.bar(f"batch size {size}", config.rounds * len(self._ways), unit="blocks")
            warm = False
            for number in range(config.rounds):
                # A way's place among the others changes from round to round.
                shift = number % len(self._ways)
                for way in (*self._ways[shift:], *self._ways[:shift]):
                    key = digest(
                        [way.series.key, len(self._problems), size, number, config.answers]
                    )
                    if self._store.timing(key) is None:
                        if not warm:
                            await self._warm_up(size)
                            warm = True
                        block = await self._block(way, size, number)
                        self._store.keep_timing(key, position, block)
                    bar.step()
                    position += 1
            bar.say()

    async def _warm_up(self, size: int) -> None:
        """One answer of each client in each way, thrown away."""
        for way in self._ways:
            await self._clients(way, size, size)

    async def _block(self, way: Way, size: int, number: int) -> dict[str, Any]:
        if self._flushed:
            await way.client.flush()
        begun = time.perf_counter()
        answers = await self._clients(way, size, answers_of(self._config, size))
        wall = time.perf_counter() - begun
        # Graded afterwards: grading must not take time from the clients.
        for one in answers:
            text = one.pop("text", None)
            if text is not None:
                one["right"] = (await self._grader.grade(one["place"], text)).grade.right
        return {
            "batch_size": size,
            "round": number,
            "way": way.name,
            "wall": wall,
            "answers": answers,
        }

    async def _clients(self, way: Way, size: int, total: int) -> list[dict[str, Any]]:
        """`size` clients, each with its next problem as soon as it has its answer."""
        answers: list[dict[str, Any]] = []

        async def client(number: int) -> None:
            for turn in range(number, total, size):
                answer = await self._ask(way, turn % len(self._problems))
                answers.append({"turn": turn, **answer})

        await together(client(number) for number in range(size))
        return answers

    async def _ask(self, way: Way, place: int) -> dict[str, Any]:
        body: Mapping[str, Any] = way.series.body(self._problems[place], 0)
        try:
            answer = await way.client.ask(body)
        except (RefusedError, TroubleError) as error:
            return {"place": place, "error": str(error)}
        return {
            "place": place,
            "seconds": answer.seconds,
            "ttft": answer.ttft,
            "tokens": answer.tokens,
            "finish": answer.finish,
            "structure": answer.structure,
            "digest": digest(answer.text),
            "text": answer.text,
            "tries": answer.tries,
        }
