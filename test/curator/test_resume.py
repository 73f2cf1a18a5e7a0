"""Killed at any moment, a run goes on: the same output, and nothing paid for twice."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import multiprocessing
import os
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from sglang_multiverse.curator.__main__ import main
from sglang_multiverse.curator.demo import bundled, write_source

from .hostile import Hostile

WRITTEN = (
    *("train.jsonl", "held-out.jsonl", "train-sequential.jsonl", "held-out-sequential.jsonl"),
    *("train.parquet", "held-out.parquet", "failures.jsonl", "README.md"),
)
LATENCY = 0.06
CONCURRENCY = 4


def many(count):
    """The bundled chains over and over, as chains of their own."""
    some = bundled()
    return [
        dataclasses.replace(some[i % len(some)], question=f"{some[i % len(some)].question}\n({i})")
        for i in range(count)
    ]


class Slow(Hostile):
    """Good answers after a while."""

    async def respond(self, request):
        response = await super().respond(request)
        await asyncio.sleep(random.uniform(0.5, 1.5) * LATENCY)
        return response


def command(source, out, url):
    flags = ["--base-url", url, "--concurrency", str(CONCURRENCY), "--no-plots"]
    return ["run", str(source), "--out", str(out), *flags]


def run_in_child(arguments):
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        os._exit(main(arguments))


def stored(out, known):
    """(question, stage) of the calls whose answers are kept."""
    path = out / "records.sqlite"
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(path)) as db:
        try:
            rows = db.execute("SELECT example, stage FROM calls").fetchall()
        except sqlite3.OperationalError:  # killed before there was a table
            return set()
    names = {f"example-{i}": one.question.strip() for i, one in enumerate(known, 1)}
    return {(names[example], stage) for example, stage in rows}


def killed_and_resumed(tmp_path, chains, kills, seed):
    known = many(chains)
    write_source(known, tmp_path / "source.jsonl")
    unbroken, broken = Slow(known), Slow(known)
    with unbroken.server() as server:
        assert main(command(tmp_path / "source.jsonl", tmp_path / "whole", server.url)) == 0
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sglang_multiverse.curator.__main__"])
    draw = random.Random(seed)
    done = 0
    with broken.server() as server:
        arguments = command(tmp_path / "source.jsonl", tmp_path / "out", server.url)
        for _ in range(kills):
            child = context.Process(target=run_in_child, args=(arguments,))
            asked = len(broken.requests)
            child.start()
            # From the first call to far into the run, in calls: a busy machine gets as far.
            until, limit = asked + draw.randint(1, 3 * CONCURRENCY), time.monotonic() + 60
            while len(broken.requests) < until and child.is_alive() and time.monotonic() < limit:
                time.sleep(0.002)
            time.sleep(draw.uniform(0, LATENCY))
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            done += child.exitcode == -signal.SIGKILL
            time.sleep(2 * LATENCY)  # what the dead one had sent is answered
            kept, before = stored(tmp_path / "out", known), broken.calls.copy()
            yield kept, before, broken.calls, len(broken.requests) - asked
        asked = len(broken.requests)
        assert main(arguments) == 0
        kept = stored(tmp_path / "out", known)
        yield kept, before, broken.calls, len(broken.requests) - asked
        # Finished work costs nothing: once more asks for nothing.
        calls = broken.calls.copy()
        assert main(arguments) == 0
        assert broken.calls == calls
    assert done >= kills * 0.8
    for name in WRITTEN:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert broken.calls.total() <= unbroken.calls.total() + kills * CONCURRENCY
    assert unbroken.calls.total() == len(unbroken.calls)


def check(tmp_path, chains, kills, seed):
    kept: set = set()
    before: dict = {}
    rounds = 0
    runs = killed_and_resumed(tmp_path, chains, kills, seed)
    for newly_kept, newly_before, calls, asked in runs:
        # Only what was in flight is lost.
        assert len(newly_kept) >= len(kept) + asked - CONCURRENCY
        # What was kept before this round was not asked for in it.
        for pair in kept:
            assert calls[pair] == before[pair], pair
        kept, before = newly_kept, newly_before
        rounds += 1
    assert rounds == kills + 1


def test_killed_three_times(tmp_path):
    check(tmp_path, chains=12, kills=3, seed=1)


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    check(tmp_path, chains=60, kills=20, seed=2)


def test_killed_while_it_writes(tmp_path):
    """With nothing left to ask, a run only writes: a file is there as a whole or not at all."""
    known = many(40)
    write_source(known, tmp_path / "source.jsonl")
    out = tmp_path / "out"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sglang_multiverse.curator.__main__"])
    draw = random.Random(3)
    with Hostile(known).server() as server:
        arguments = command(tmp_path / "source.jsonl", out, server.url)
        assert main(arguments) == 0
        whole = {name: (out / name).read_bytes() for name in WRITTEN}
        for name in WRITTEN:
            (out / name).unlink()
        for _ in range(8):
            child = context.Process(target=run_in_child, args=(arguments,))
            child.start()
            limit = time.monotonic() + 30
            while not list(out.glob(".*.new")) and child.is_alive() and time.monotonic() < limit:
                time.sleep(0.0005)
            time.sleep(draw.uniform(0, 0.02))
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            for name in WRITTEN:
                if (out / name).exists():
                    assert (out / name).read_bytes() == whole[name]
                    (out / name).unlink()
        assert main(arguments) == 0
    assert {name: (out / name).read_bytes() for name in WRITTEN} == whole
