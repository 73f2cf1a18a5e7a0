"""Real Multiverse texts, made sequential, come back with the blocks, paths and nesting they had."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import pytest

from sglang_multiverse.curator.__main__ import main
from sglang_multiverse.curator.demo import Known, serving, take_apart, write_source
from sglang_multiverse.curator.demo.known import Part
from sglang_multiverse.structure import MULTIVERSE
from sglang_multiverse.training.data.blocks import OPENING

TRACES = Path(__file__).resolve().parents[3] / "shared" / "data" / "multiverse_traces.jsonl"
COUNT = 26

with_traces = pytest.mark.skipif(
    not TRACES.is_file() and "CI" not in os.environ,
    reason=f"no traces at ../shared/data/{TRACES.name} beside the checkout",
)
pytestmark = with_traces


@cache
def known() -> dict[str, Known]:
    """The well-formed ones: up to the end of the thinking, and what follows it."""
    found = {}
    for line in TRACES.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["balanced"]:
            thinking, _, answer = row["output"].partition("</Think>")
            parts = take_apart(thinking.replace("<Think>", ""))
            found[row["id"]] = Known(f"{row['user']}\n({row['id']})", parts, answer.strip())
    return found


def without_conclusions(parts: tuple[Part, ...]) -> list[object]:
    return [
        (part.text, [without_conclusions(path) for path in part.paths], part.outlines)
        for part in parts
    ]


def test_all_are_there():
    assert len(known()) == COUNT
    # The chains hold nothing of the structure that the curator has to find.
    for one in known().values():
        assert OPENING not in one.chain
        assert not any(tag in one.chain for tag in MULTIVERSE.tags)


def test_the_original_comes_back(tmp_path):
    with serving(known().values()) as server:
        write_source(known().values(), tmp_path / "chains.jsonl")
        run = ["run", str(tmp_path / "chains.jsonl"), "--out", str(tmp_path / "out")]
        flags = ["--base-url", server.url, "--no-plots", "--min-parallelism", "1"]
        assert main([*run, *flags]) == 0

    rows = [
        json.loads(line)
        for name in ("train", "held-out")
        for line in (tmp_path / "out" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(rows) == COUNT
    by_question = {row["messages"][0]["content"]: row["messages"][1]["content"] for row in rows}
    changed = 0
    for one in known().values():
        text = by_question[one.question]
        if one.answer:
            thinking, _, answer = text.removeprefix("<Think>\n").partition("</Think>\n\n")
            assert answer == one.answer
        else:
            thinking = text
        got = take_apart(thinking)
        # Conclusions with numbers that nothing before them has are sent back, and not kept.
        assert without_conclusions(got) == without_conclusions(one.parts)
        changed += got != one.parts
    assert changed <= 3


def test_the_twin_is_the_chain(tmp_path):
    some = list(known().values())[:3]
    with serving(some) as server:
        write_source(some, tmp_path / "chains.jsonl")
        run = ["run", str(tmp_path / "chains.jsonl"), "--out", str(tmp_path / "out")]
        assert main([*run, "--base-url", server.url, "--no-plots"]) == 0
    twins = [
        json.loads(line)["messages"][1]["content"]
        for name in ("train", "held-out")
        for line in (tmp_path / "out" / f"{name}-sequential.jsonl").read_text().splitlines()
    ]
    meant = [
        f"<Think>\n{one.chain}\n</Think>\n\n{one.answer}" if one.answer else one.chain
        for one in some
    ]
    assert sorted(twins) == sorted(meant)
