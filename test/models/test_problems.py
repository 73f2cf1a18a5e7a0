"""The problems, their solutions, and the record of the model trained on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from models import problems
from sglang_multiverse.structure import TagTable, parse, walk


@pytest.mark.parametrize("kind", problems.KINDS)
def test_solutions_are_right_well_formed_and_as_parallel_as_the_problem(
    kind: problems.Kind, tiny_tokenizer: Any, tiny_tags: TagTable
) -> None:
    for seed in range(50):
        problem = problems.generate(seed, kind=kind)
        assert problem == problems.generate(seed, kind=kind)
        assert problem.kind == kind
        assert problems.check(problem, problem.solution)
        assert not problems.check(problem, problem.solution.replace(problems.answer(problem), ""))
        assert not problems.check(problem, problem.solution + "0")
        trace = parse(tiny_tokenizer.encode(problem.solution, add_special_tokens=False), tiny_tags)
        assert trace.well_formed
        assert tuple(len(b.branches) for b in walk(trace.blocks)) == problem.branches
    assert (problem.branches == ()) == (kind == "one")


def test_no_problem_is_in_both_splits() -> None:
    trained = {problems.generate(seed).prompt for seed in range(500)}
    held_out = {problems.generate(seed, "held-out").prompt for seed in range(500)}
    assert trained.isdisjoint(held_out)


def test_the_checkpoint_is_recorded(tiny_path: Path) -> None:
    record = json.loads((tiny_path / "training.json").read_text())
    assert {"command", "seed", "steps", "minutes", "machine"} <= record.keys()
    assert record["held_out_accuracy"]["all"]["problems"] > 0


def test_the_checkpoint_is_good_enough(tiny_path: Path) -> None:
    accuracy = json.loads((tiny_path / "training.json").read_text())["held_out_accuracy"]
    assert accuracy["all"]["problems"] >= 200
    assert all(accuracy[kind]["exact"] >= 0.95 for kind in ("all", *problems.KINDS))
