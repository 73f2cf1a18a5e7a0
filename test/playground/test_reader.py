"""The page reads text as `structure` does: the same units, the same tree."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from demo.pieces import LINEAR
from playground.node import needs_node, run
from sglang_multiverse.structure import MULTIVERSE, Block, TagTable, Trace, parse

pytestmark = needs_node

TAGS = TagTable.from_ids(MULTIVERSE, {tag: i for i, tag in enumerate(MULTIVERSE.tags)})
TRACES = Path(__file__).resolve().parents[3] / "shared" / "data" / "multiverse_traces.jsonl"
# In a well-formed order, so that changes to it go deep before they go wrong.
WELL_FORMED = (
    "<Think> w <Parallel> w <Goal> <Outline> w </Outline> <Outline> w </Outline> </Goal> <Path> w "
    "<Parallel> <Goal> <Outline> w </Outline> <Outline> w </Outline> </Goal> <Path> w w </Path> "
    "<Path> w </Path> <Conclusion> w </Conclusion> </Parallel> w </Path> w <Path> w w w </Path> w "
    "<Conclusion> w </Conclusion> w </Parallel> w </Think> w"
).split()


def texts(count: int) -> list[list[str]]:
    """Well-formed texts with a few units taken out, put in or exchanged; and plain noise."""
    rng = random.Random(7)
    found = [WELL_FORMED]
    vocabulary = [*MULTIVERSE.tags, "w"]
    while len(found) < count:
        if rng.random() < 0.2:
            found.append(rng.choices(vocabulary, k=rng.randrange(40)))
            continue
        units = list(WELL_FORMED)
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(len(units))
            units[at : at + rng.randrange(2)] = rng.choices(vocabulary, k=rng.randrange(2))
        found.append(units[: rng.randrange(len(units)) if rng.random() < 0.3 else None])
    return found


def reading(units: Sequence[str]) -> Trace:
    ids = [MULTIVERSE.tags.index(unit) if unit in MULTIVERSE.tags else 99 for unit in units]
    return parse(ids, TAGS)


def block(found: Block) -> dict[str, Any]:
    return {
        "span": list(found.span),
        "goalEnd": found.goal_end,
        "outlines": [list(outline) for outline in found.outlines],
        "branches": [
            {
                "span": list(branch.span),
                "closed": branch.closed,
                "blocks": [block(inner) for inner in branch.blocks],
            }
            for branch in found.branches
        ],
        "conclusion": None if found.conclusion is None else list(found.conclusion),
        "closed": found.closed,
    }


def test_the_tags_are_those_of_the_dialect() -> None:
    roles = run('result = (await load("dialect")).ROLES;')
    assert tuple(roles) == MULTIVERSE.tags
    theirs = [
        role.value.replace(" ", "-").replace("branch", "path") for role in MULTIVERSE.roles.values()
    ]
    assert list(roles.values()) == theirs


def test_every_text_is_read_alike() -> None:
    cases = texts(3000)
    answers = run('const { read } = await load("reader"); result = data.map(read);', cases)
    trees = 0
    for units, answer in zip(cases, answers, strict=True):
        trace = reading(units)
        assert answer["blocks"] == [block(found) for found in trace.blocks], units
        assert answer["stray"] == trace.stray, units
        assert answer["empty"] == trace.empty, units
        assert len(answer["open"]) == trace.open_blocks, units
        assert answer["positions"] == trace.positions, units
        trees += bool(trace.blocks)
    assert trees > 1000  # it is not all noise


def test_what_is_wrong_is_found_where_structure_finds_it() -> None:
    cases = texts(1000)
    answers = run(
        'const { read, defects } = await load("reader");'
        "result = data.map((units) => defects(read(units)));",
        cases,
    )
    broken = 0
    for units, answer in zip(cases, answers, strict=True):
        trace = reading(units)
        assert bool(answer) == (not trace.well_formed), units
        assert [d["at"] for d in answer if d["what"] == "a tag out of place"] == trace.stray
        broken += bool(answer)
    assert 100 < broken < 1000


@pytest.mark.skipif(not TRACES.exists(), reason="the public traces are not beside this checkout")
def test_the_public_traces() -> None:
    rows = [json.loads(line) for line in TRACES.read_text("utf-8").splitlines()]
    answers = run(
        """
        const { splitAtTags } = await load("dialect");
        const { defectsOf, runOfText, transcriptOf } = await load("run");
        result = data.map((text) => ({
          units: splitAtTags(text),
          defects: defectsOf(text),
          same: transcriptOf(runOfText(text, "", "")).text === text,
        }));
        """,
        [row["output"] for row in rows],
    )
    for row, answer in zip(rows, answers, strict=True):
        assert "".join(answer["units"]) == row["output"]
        assert answer["same"], row["id"]
        trace = reading(answer["units"])
        assert bool(answer["defects"]) == (not trace.well_formed), row["id"]
        for defect in answer["defects"]:
            assert row["output"].startswith(MULTIVERSE.tags, defect["at"]), defect


def test_a_text_becomes_a_tree_and_again_the_text() -> None:
    cases = [
        "".join(unit if unit in MULTIVERSE.tags else f" {unit}{i}" for i, unit in enumerate(units))
        for units in texts(1000)
    ]
    same = run(
        """
        const { runOfText, transcriptOf } = await load("run");
        result = data.map((text) => transcriptOf(runOfText(text, "", "")).text);
        """,
        [LINEAR, *cases],
    )
    assert same == [LINEAR, *cases]
