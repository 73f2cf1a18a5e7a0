"""Examples through the five stages, many at once, each one call after the other."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..records import digest
from .config import STAGE_NAMES, RunConfig, StageSettings, stage_settings
from .dialogue import converse
from .draft import Draft, Example
from .endpoint import Asked, cost_of
from .errors import (
    BudgetReachedError,
    EndpointTroubleError,
    NotAskedError,
    RejectedError,
    StageFailedError,
)
from .finish import Counter, finished, most_parallelism, sequential
from .prompt import FIRST, Attempt, prompt
from .request import Reply, Request
from .schema import json_schema
from .sentences import split
from .stages import STAGES
from .store import Store, Stored
from .tree import has_groups

VERSION = 2
"""Raised when the same answers make other examples, so that these are made anew."""


FIRST_STAGES = ("outline", "graph", "refill")
"""Where one of these fails, steps and text do not fit each other: the outline is asked anew. After
that it holds, and what fails goes back to the graph, which made the groups."""


class Watcher(Protocol):
    """Who is told what happens; see `progress`."""

    def called(self, stage: str, reply: Reply) -> None: ...

    def stage_done(self, stage: str) -> None: ...

    def stage_failed(self, stage: str) -> None: ...

    def example_done(self, status: str) -> None: ...


@dataclass(slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        unfinished: id → why, of examples that can be tried again.
        stopped: why the run ended early; empty if it did not.
    """

    unfinished: dict[str, str] = dataclasses.field(default_factory=dict)
    stopped: str = ""


class Curator:
    """One run: `config.concurrency` examples at a time, whatever the source's length."""

    def __init__(
        self,
        config: RunConfig,
        endpoint: Asked,
        store: Store,
        counter: Counter,
        watcher: Watcher,
        model: str,
    ) -> None:
        self._config = replace(config, model=model)
        self._endpoint, self._store, self._counter = endpoint, store, counter
        self._watcher = watcher
        self._settings = stage_settings(self._config)
        self._made_with = made_with(self._config, counter.name)
        self._troubles = 0

    async def run(self, examples: Iterable[Example]) -> Outcome:
        """Curate what is not finished yet.

        Raises:
            CuratorError: the endpoint cannot be used at all.
        """
        self._store.begin()
        outcome = Outcome()
        waiting = self._listed(examples)

        async def work() -> None:
            for key, example in waiting:
                if outcome.stopped:
                    return
                try:
                    await self._example(key, example)
                    self._troubles = 0
                except BudgetReachedError:
                    outcome.stopped = outcome.stopped or "the budget is used up"
                except NotAskedError as error:
                    outcome.unfinished[example.id] = str(error)
                    self._watcher.example_done("unfinished")
                except EndpointTroubleError as error:
                    outcome.unfinished[example.id] = str(error)
                    self._watcher.example_done("unfinished")
                    self._troubles += 1
                    if self._troubles > max(8, 2 * self._config.concurrency):
                        outcome.stopped = f"the endpoint fails again and again: {error}"

        await gather(work() for _ in range(self._config.concurrency))
        for _ in waiting:  # listed, not worked on
            pass
        return outcome

    def _listed(self, examples: Iterable[Example]) -> Iterator[tuple[str, Example]]:
        """Every example with its key, listed in the store as it is taken."""
        for position, example in enumerate(examples):
            key = digest([dataclasses.astuple(example), self._made_with])
            self._store.list_example(position, key, example.id)
            yield key, example

    async def _example(self, key: str, example: Example) -> None:
        before = self._store.example(key)
        outline = rest = FIRST
        if self._config.only:
            self._store.forget_example(key)
        elif before and before.status == "failed" and self._config.retry_failed:
            outline = rest = Attempt(*(before.content[name] for name in Attempt._fields))
        elif before:
            for stage in STAGES:
                self._watcher.stage_done(stage.name)
            self._watcher.example_done(before.status)
            return
        for _ in range(self._config.rounds):
            try:
                content = await self._round(example, outline, rest)
            except StageFailedError as error:
                failed = error
            except RejectedError as error:
                failed = StageFailedError("render", str(error))
            else:
                if content is not None:
                    self._store.keep_example(key, Stored(example.id, "done", content))
                    self._watcher.example_done("done")
                return
            # The last stage's words make the text, and earn the remarks that `strict` refuses.
            self._watcher.stage_failed(failed.stage if failed.stage in STAGE_NAMES else "rewrite")
            rest = Attempt(rest.rounds + 1, failed.reason, failed.found)
            if failed.stage in FIRST_STAGES:
                outline = rest
        failure = {"stage": failed.stage, **rest._asdict()}
        self._store.keep_example(key, Stored(example.id, "failed", failure))
        self._watcher.example_done("failed")

    async def _round(
        self, example: Example, outline: Attempt, rest: Attempt
    ) -> dict[str, Any] | None:
        """One time through the stages; `None` where `only` leaves off in between.

        Args:
            outline: how stage 1 is asked; `rest`: how those after it are.
        """
        draft = Draft(example, tuple(split(example.thinking)))
        least, only = self._config.min_parallelism, self._config.only
        for stage in STAGES:
            if only and stage.number > only:
                return None
            draft = await converse(
                stage,
                draft,
                self._config.rules,
                self._settings[stage.name],
                self._asker(example, stage.number == only),
                repairs=self._config.repairs,
                before=outline if stage.number == 1 else rest,
            )
            self._watcher.stage_done(stage.name)
            why = ""
            if stage.number == 2 and draft.graph and not has_groups(draft.steps, draft.graph):
                why = "no steps that do not need each other"
            elif stage.number == 3 and (most := most_parallelism(draft, self._counter)) < least:
                why = f"degree of parallelism at most {most:.3f}, below {least:g}"
            if why:
                for left in STAGES[stage.number :]:
                    self._watcher.stage_done(left.name)
                return sequential(draft, self._counter, why)
        if self._config.strict and draft.remarks:
            found = "\n\n".join(STAGES[-1].found(draft))
            raise StageFailedError("remarks", "; ".join(draft.remarks), found)
        return finished(draft, self._counter, least)

    def _asker(self, example: Example, anew: bool) -> Callable[[Request, int], Any]:
        async def ask(request: Request, attempt: int) -> Reply:
            key = request.key
            if not anew and (kept := self._store.reply(key)) is not None:
                return kept
            if self._config.only and not anew:
                raise NotAskedError(
                    f"{request.name} was not asked before; run without --only first"
                )
            reply = await self._endpoint.ask(request)
            self._watcher.called(request.name, reply)
            self._store.keep_reply(
                key,
                reply,
                example=example.id,
                stage=request.name,
                round=request.round,
                attempt=attempt,
                model=request.settings.model,
                cost=cost_of(reply, request.settings),
            )
            return reply

        return ask


def made_with(config: RunConfig, counter: str) -> str:
    """The address of everything besides the source that an example depends on."""
    settings = {
        name: _without_prices(settings) for name, settings in stage_settings(config).items()
    }
    prompts = {stage.name: [prompt(stage.name), json_schema(stage.schema)] for stage in STAGES}
    rules = dataclasses.asdict(config.rules)
    others = [config.repairs, config.rounds, config.min_parallelism, config.strict, counter]
    return digest([VERSION, prompt("common"), settings, prompts, rules, others])


def _without_prices(settings: StageSettings) -> dict[str, Any]:
    kept = dataclasses.asdict(settings)
    del kept["price_in"], kept["price_out"]
    return kept


async def gather(work: Iterable[Any]) -> None:
    """Run all; the first error cancels the others and is raised as it is."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
