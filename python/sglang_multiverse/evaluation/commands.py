"""What `run` and `budget` do, one step after the other."""

from __future__ import annotations

import dataclasses
import os
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from . import facts
from .client import Client
from .collect import Collector
from .config import AskConfig, BudgetConfig, RunConfig, StatisticsConfig
from .grading import Grader
from .progress import Shown
from .series import make_series
from .store import Kind, Store
from .tasks import Problem, Spec, about, open_task


def connect(config: AskConfig, url: str) -> Client:
    """The client of one of the endpoints."""
    return Client(
        url,
        os.environ.get(config.api_key_env) or "none",
        timeout=config.timeout,
        retries=config.retries,
        backoff=config.backoff,
    )


def specs(config: AskConfig) -> list[Spec]:
    return [
        Spec(name, config.task_file, config.task_seed, config.limit)
        for name in dict.fromkeys(config.task)
    ]


def problems_of(spec: Spec) -> list[Problem]:
    """The problems of a task that can also be graded here.

    Raises:
        EvaluationError: something is missing; nothing was asked yet.
    """
    task = open_task(spec)
    task.prepare()
    return list(task.problems())


def note(store: Store, kind: Kind, command: str) -> None:
    """Write down whose records these are, before the first of them."""
    store.claim(kind)
    commands = store.fact("commands") or []
    store.keep_fact("commands", [*(one for one in commands if one != command), command])
    store.keep_fact("machine", facts.describe())


def note_statistics(store: Store, config: StatisticsConfig) -> None:
    names = [spec.name for spec in dataclasses.fields(StatisticsConfig)]
    store.keep_fact("bootstrap", {name: getattr(config, name) for name in names})


async def note_server(store: Store, role: str, client: Client) -> None:
    servers = store.fact("servers") or {}
    store.keep_fact("servers", {**servers, role: await client.server_info()})


async def run(config: RunConfig, out: Path, command: str, console: Console) -> None:
    """Every task of the config, into the store below `out`.

    Raises:
        EvaluationError: what was answered until then is kept.
    """
    tasks = [(spec, problems_of(spec)) for spec in specs(config)]
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(connect(config, config.base_url))
        model = await client.first_model(config.model)
        store = stack.enter_context(Store(out))
        note(store, "run", command)
        note_statistics(store, config)
        await note_server(store, "", client)
        shown = stack.enter_context(Shown(console))
        for spec, problems in tasks:
            async with Grader(spec, config.grade_timeout) as grader:
                series = make_series(config, spec, model, about(spec.name).max_tokens)
                collector = Collector(config, client, store, grader, problems, shown)
                await collector.fill(series, spec.name)


async def budget(config: BudgetConfig, out: Path, command: str, console: Console) -> None:
    """A ladder of budgets for one model, and for a sequential one if there is one.

    From the largest budget down: an answer that ended by itself below a smaller budget is what
    that budget would have given, since the model does not know of budgets.
    """
    from .ladder import climb

    (spec,) = specs(config)
    problems = problems_of(spec)
    sides = [("parallel", config.base_url, config.model)]
    if config.baseline_url:
        sides.append(("baseline", config.baseline_url, config.baseline_model))
    async with AsyncExitStack() as stack:
        clients = []
        for role, url, wanted in sides:
            client = await stack.enter_async_context(connect(config, url))
            clients.append((role, client, await client.first_model(wanted)))
        store = stack.enter_context(Store(out))
        note(store, "budget", command)
        note_statistics(store, config)
        for role, client, _ in clients:
            await note_server(store, role, client)
        shown = stack.enter_context(Shown(console))
        grader = await stack.enter_async_context(Grader(spec, config.grade_timeout))
        for role, client, model in clients:
            collector = Collector(config, client, store, grader, problems, shown)
            await climb(config, collector, store, spec, model, role)
