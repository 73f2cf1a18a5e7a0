"""Which loads are run, in what order and for how long; every result is written at once."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from answers import Answer
from loops import Load, closed, opened
from tally import tally
from ways import PLAIN, SIDE_BY_SIDE, Asker

SEED = 20250701
FEWEST = 6  # questions of an open loop
MORE = 1.5  # times the tokens a second that more clients are taken to bring


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes:
        structures: the answers of each case, by its name.
        clients: numbers of them, in the order in which they are run.
        answers, turns: a way has turns in a case until it gave that many answers, and at most
            that many turns.
        shares: arrivals, as shares of what the plain way can do.
        until: when all must be over, on `time.monotonic`.
        open_seconds: what the arrivals have of it.
    """

    structures: Mapping[str, Sequence[Answer]]
    ways: Sequence[str]
    clients: Sequence[int]
    answers: int
    turns: int
    shares: Sequence[float]
    until: float
    open_seconds: float

    def turns_of(self, clients: int) -> int:
        return max(min(self.turns, -(-self.answers // clients)), 1)


@dataclass
class Results:
    """The file that grows."""

    path: Path
    found: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.found |= {"closed": [], "open": [], "left_out": []}

    def keep(self, kind: str, what: dict[str, Any] | str) -> None:
        self.found[kind].append(what)
        self.path.write_text(json.dumps(self.found, indent=1) + "\n")
        if isinstance(what, str):
            print(f"left out: {what}", flush=True)
            return
        print(what["name"], flush=True)
        for way, said in what["ways"].items():
            print(
                f"  {way:12} {said['answers_s']:7.2f} answers/s {said['tokens_s']:7.0f} tokens/s"
                f"  p50 {said['latency_s']['p50']:.2f} s  p99 {said['latency_s']['p99']:.2f} s"
                f"{'  WRONG' if said['wrong'] else ''}",
                flush=True,
            )

    @property
    def wrong(self) -> int:
        cases = [*self.found["closed"], *self.found["open"]]
        return sum(said["wrong"] for case in cases for said in case["ways"].values())

    def best(self, way: str) -> float:
        """The most tokens a second in a closed loop; 0 if there is none yet."""
        cases = self.found["closed"]
        return max(
            (case["ways"][way]["tokens_s"] for case in cases if way in case["ways"]), default=0.0
        )

    def seconds(self, clients: int, tokens: float) -> float:
        """What so many tokens of each way would take, judged by the fastest case so far."""
        rates = []
        for case in self.found["closed"]:
            ways = case["ways"].values()
            rate = len(ways) / sum(1 / said["tokens_s"] for said in ways)
            rates.append(rate * (MORE if case["clients"] < clients else 1))
        return tokens / max(rates) if rates else 0.0


async def carry_out(plan: Plan, askers: Mapping[str, Asker], results: Results) -> None:
    """`askers` has one for each way."""
    first = next(iter(plan.structures.values()))
    for way in plan.ways:  # what is made at first use is made now
        await askers[way].ask(way, first[0], 0)
    for clients in plan.clients:
        for name, answers in plan.structures.items():
            await _closed(plan, askers, results, clients, name, answers)
    if plan.shares:
        await _open(plan, askers, results)


async def _closed(
    plan: Plan,
    askers: Mapping[str, Asker],
    results: Results,
    clients: int,
    name: str,
    answers: Sequence[Answer],
) -> None:
    turns = plan.turns_of(clients)
    tokens = clients * turns * len(plan.ways) * _mean(answers)
    takes = results.seconds(clients, tokens)
    named = f"{clients} clients, {name}"
    if time.monotonic() + takes > plan.until - plan.open_seconds:
        results.keep("left_out", f"{named}: would take about {takes:.0f} s")
        return
    loads: dict[str, list[Load]] = {way: [] for way in plan.ways}
    for turn in range(turns):
        for way in _rotated(plan.ways, turn):
            seed = SEED + turn * clients
            loads[way].append(await closed(askers[way], way, answers, clients, 1, seed))
    degree = sum(len(one.ids) for one in answers) / sum(one.path for one in answers)
    results.keep(
        "closed",
        {
            "name": named,
            "structure": name,
            "clients": clients,
            "tokens": round(_mean(answers), 1),
            "degree_of_parallelism": round(degree, 3),
            "ways": {
                way: tally(had, alone=clients == 1 and way in SIDE_BY_SIDE)
                for way, had in loads.items()
            },
        },
    )


async def _open(plan: Plan, askers: Mapping[str, Asker], results: Results) -> None:
    """All answers in turn, at shares of what the plain way did at its best."""
    answers = [one for some in plan.structures.values() for one in some]
    capacity = results.best(PLAIN) / _mean(answers)
    if not capacity:
        results.keep("left_out", "arrivals at a rate: the plain way's capacity is not known")
        return
    each = min(plan.open_seconds, plan.until - time.monotonic())
    each /= len(plan.shares) * len(plan.ways)
    for share in plan.shares:
        rate = share * capacity
        count = max(int(rate * each), FEWEST)
        named = f"{share:.0%} of {capacity:.2f} answers/s"
        takes = count / rate * len(plan.ways)
        if time.monotonic() + takes > plan.until + plan.open_seconds / 4:
            results.keep("left_out", f"{named}: would take about {takes:.0f} s")
            continue
        ways = {}
        for way in plan.ways:
            load = await opened(askers[way], way, answers, rate, count, SEED)
            ways[way] = tally([load], alone=False)
        said = {"name": named, "share": share, "rate": round(rate, 3), "ways": ways}
        results.keep("open", {"capacity": round(capacity, 3), **said})


def _mean(answers: Sequence[Answer]) -> float:
    return sum(len(one.ids) for one in answers) / len(answers)


def _rotated(ways: Sequence[str], turn: int) -> list[str]:
    by = turn % len(ways)
    return [*ways[by:], *ways[:by]]
