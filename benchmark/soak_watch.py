"""What a soak looks at: a line now and then, the scheduler's size, and the server's counters."""

from __future__ import annotations

import asyncio
import contextlib
import re
import statistics
import time
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from load import Load
    from rich.console import Console
    from soak_operator import Operator

    from server import Server


class Watch:
    """A line now and then, and the size of the scheduler process."""

    def __init__(self, server: Server, load: Load, operator: Operator, console: Console) -> None:
        self.server, self.load, self.operator, self.console = server, load, operator, console
        self.start = time.monotonic()
        self.rss: list[int] = []

    async def run(self, every: float) -> None:
        process = scheduler_process(self.server)
        live = self.console.is_terminal
        shown = 0.0
        with self.console.status("starting") if live else contextlib.nullcontext() as status:
            while True:
                with contextlib.suppress(psutil.NoSuchProcess):
                    self.rss.append(process.memory_info().rss)
                if status is not None:
                    status.update(self.line())
                elif time.monotonic() - shown >= every:
                    shown = time.monotonic()
                    self.console.print(self.line(), soft_wrap=True, highlight=False)
                await asyncio.sleep(2)

    def line(self) -> str:
        tally, fates, operator = self.load.tally, self.load.tally.fates, self.operator
        return (
            f"{time.monotonic() - self.start:5.0f} s  sent {tally.sent}  open {tally.open}  "
            f"completed {fates['completed']}  disconnected {fates['disconnected']}  "
            f"aborted {fates['aborted']}  tokens {tally.tokens}  "
            f"retractions {tally.retractions}  pauses {operator.pauses.total()}  "
            f"updates {operator.updates}  errors {len(tally.errors) + len(operator.errors)}  "
            f"hangs {len(tally.hangs)}  rss {self.rss[-1] / 2**20 if self.rss else 0:.0f} MiB"
        )

    def memory(self, tolerance: float) -> dict[str, Any]:
        """Medians of the first and the last quarter, and whether they are as good as equal."""
        quarter = max(len(self.rss) // 4, 1)
        first, last = (
            statistics.median(part) / 2**20 for part in (self.rss[:quarter], self.rss[-quarter:])
        )
        return {
            "first_quarter_mib": round(first, 1),
            "last_quarter_mib": round(last, 1),
            "tolerance_mib": tolerance,
            "samples": len(self.rss),
            "flat": last - first <= tolerance,
        }


def scheduler_process(server: Server) -> psutil.Process:
    assert server.process is not None
    children = psutil.Process(server.process.pid).children(recursive=True)
    for child in children:
        if "scheduler" in " ".join([child.name(), *child.cmdline()]):
            return child
    return max(children, key=lambda child: child.memory_info().rss)


def load_of(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.http.get("/v1/loads").json()["loads"][0]
    return found


def idle_load(server: Server, seconds: float) -> dict[str, Any]:
    """The load report once nothing runs or waits, or the last one in that time."""
    end = time.monotonic() + seconds
    while True:
        load = load_of(server)
        busy = load["num_running_reqs"] + load["num_waiting_reqs"] + load["num_used_tokens"]
        if not busy or time.monotonic() > end:
            return load
        time.sleep(0.5)


def counter(server: Server, name: str, labels: str = "") -> int:
    return labelled(server.http.get("/metrics").text, name, labels)


def labelled(metrics: str, name: str, labels: str = "") -> int:
    """The sum of `name` over all labels that have `labels`, such as `by="ours"`, among them."""
    line = rf"^{re.escape(name)}(?:\{{.*{re.escape(labels)}.*\}})? (\S+)$"
    if labels:
        line = line.replace(")?", ")")
    return int(sum(map(float, re.findall(line, metrics, re.MULTILINE))))


def shortage(server: Server, rows: int, slots: int) -> dict[str, Any]:
    """How short the scheduler was of what it has, as the plugin `gauge` counted it."""
    count = {
        name: counter(server, f"soak:{name}_total")
        for name in (
            "steps",
            "steps_short_of_rows",
            "steps_short_of_slots",
            "rows_held",
            "rows_wanted",
            "slots_held",
            "slots_wanted",
        )
    }
    steps = max(count["steps"], 1)
    return {
        "steps": count["steps"],
        "overlapped_steps": counter(server, "soak:overlapped_steps_total"),
        "steps_short_of_rows": count["steps_short_of_rows"],
        "steps_short_of_slots": count["steps_short_of_slots"],
        "rows_held_of_all": round(count["rows_held"] / steps / rows, 3),
        "rows_wanted_of_all": round(count["rows_wanted"] / steps / rows, 2),
        "slots_held_of_all": round(count["slots_held"] / steps / slots, 3),
        "slots_wanted_of_all": round(count["slots_wanted"] / steps / slots, 2),
    }


def given_way(server: Server) -> dict[str, Any]:
    """Who gave way and why."""
    return {
        "retractions": {
            cause: counter(server, "soak:retractions_total", f'cause="{cause}"')
            for cause in ("pressure", "preemption", "pause")
        },
        "retractions_by_sglang": counter(server, "sglang:num_retracted_requests_total"),
        "preemptions": {
            by: counter(server, "soak:preemptions_total", f'by="{by}"') for by in ("ours", "sglang")
        },
    }


def aftermath(server: Server, pool: int) -> dict[str, Any]:
    """The pool, with nothing under way; the cache is flushed in between."""
    before = idle_load(server, 60)
    flushed = server.http.post("/flush_cache", params={"timeout": 30}).is_success
    after = load_of(server)
    return {
        # Used = total - free - cached.
        "leaked_slots": {
            "before_flush": before["num_used_tokens"],
            "after_flush": after["num_used_tokens"],
            "total": after["max_total_num_tokens"],
            "pool_as_asked": after["max_total_num_tokens"] == pool,
        },
        "left_behind": before["num_running_reqs"] + before["num_waiting_reqs"],
        "flush_succeeded": flushed,
    }
