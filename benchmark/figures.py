"""Pairs of runs in, figures out: what `branches.py` writes and prints."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from models import problems


@dataclass(frozen=True, slots=True)
class Run:
    """One answer: its time, its text, and the server's summary of its structure."""

    seconds: float
    text: str
    finish_reason: str
    summary: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt asked both ways, one right after the other."""

    problem: problems.Problem
    batched: Run
    alone: Run

    @property
    def comparable(self) -> bool:
        """Both came to their end; a budget cuts the two ways at different places."""
        return self.batched.finish_reason == self.alone.finish_reason == "stop"

    @property
    def same(self) -> bool:
        return self.batched.text == self.alone.text

    @property
    def ratio(self) -> float:
        return self.alone.seconds / self.batched.seconds


def summarise(count: int, pairs: Sequence[Pair]) -> dict[str, Any] | None:
    """Of the answers that opened `count` branches, which the model decides."""
    pairs = [pair for pair in pairs if pair.comparable and pair.same]
    if not pairs:
        return None
    bounds = [pair.batched.summary["degree_of_parallelism"] for pair in pairs]
    return {
        "branches": count,
        "pairs": len(pairs),
        "prompts": len({pair.problem.prompt for pair in pairs}),
        "tokens": statistics.median(pair.batched.summary["tokens"] for pair in pairs),
        "one_at_a_time_s": quartiles([pair.alone.seconds for pair in pairs]),
        "batched_s": quartiles([pair.batched.seconds for pair in pairs]),
        "ratio": quartiles([pair.ratio for pair in pairs]),
        "degree_of_parallelism": quartiles(bounds),
        "most_in_one_batch": {
            way: max(getattr(pair, way).summary["max_concurrent_branches"] for pair in pairs)
            for way in ("batched", "alone")
        },
    }


def quartiles(values: Sequence[float]) -> dict[str, float]:
    low, middle, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    )
    return {"q1": round(low, 4), "median": round(middle, 4), "q3": round(high, 4)}


def agreement(pairs: Sequence[Pair], ties: set[str]) -> dict[str, int]:
    """How often the two ways wrote the same, and what became of the rest."""
    comparable = [pair for pair in pairs if pair.comparable]
    parted = [pair for pair in comparable if not pair.same]
    return {
        "pairs": len(pairs),
        "same_text_and_tokens": sum(
            pair.same and pair.batched.summary["tokens"] == pair.alone.summary["tokens"]
            for pair in comparable
        ),
        "parted_at_a_tie": sum(pair.problem.prompt in ties for pair in parted),
        "parted_otherwise": sum(pair.problem.prompt not in ties for pair in parted),
        "cut_by_the_budget": len(pairs) - len(comparable),
        "right_answers": sum(problems.check(pair.problem, pair.batched.text) for pair in pairs),
        "as_many_branches_as_parts": sum(
            pair.batched.summary["branches"] == len(pair.problem.parts) for pair in pairs
        ),
    }


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table as README.md has it; behind a median, in brackets, its quartiles."""
    lines = [
        "| branches | one at a time, s | as a batch, s | ratio | degree of parallelism |",
        "|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [
            f"{row[key]['median']:.2f} ({row[key]['q1']:.2f}–{row[key]['q3']:.2f})"
            for key in ("one_at_a_time_s", "batched_s", "ratio")
        ]
        bound = f"{row['degree_of_parallelism']['median']:.2f}"
        lines.append(f"| {row['branches']} | {' | '.join(cells)} | {bound} |")
    return "\n".join(lines)
