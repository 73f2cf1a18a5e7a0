"""What became of each problem in, figures out: what `bundled_model.py` writes."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")
PARALLEL = ("flat", "nested")
"""The kinds of problems that ask for a block."""
CHAT = "chat"
NONE = "none"
"""The group of problems that are timed and ask for no block."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A problem's three answers: the model's with the guard and without, and the twin's.

    What does not say otherwise is of the answer with the guard.
    """

    family: str
    kind: str
    right: bool
    right_unguarded: bool
    twin_right: bool
    branches_as_asked: bool
    opened_none: bool
    well_formed: bool
    well_formed_unguarded: bool
    finished: bool


@dataclass(frozen=True, slots=True)
class Timed:
    """A problem asked of the model and of the twin, one right after the other.

    Attributes:
        group: how many branches the problem asks for, `nested` or `none`.
        comparable: both answers are right, and the model's has the branches asked
            for; else the two did not do the same work.
    """

    group: str
    family: str
    comparable: bool
    seconds: float
    twin_seconds: float
    tokens: int
    twin_tokens: int
    degree_of_parallelism: float


def summary(verdicts: Sequence[Verdict], timed: Sequence[Timed]) -> dict[str, Any]:
    """Chat has no right answer, and counts only where structure is judged."""
    several = [one for one in verdicts if one.kind in PARALLEL]
    problems = [one for one in verdicts if one.kind != CHAT]
    kinds = grouped(verdicts, lambda one: one.kind)
    return {
        "multi_part": scores(several),
        "all": scores(problems),
        "by_kind": {kind: scores(some) for kind, some in kinds.items() if kind != CHAT},
        "multi_part_by_family": {
            family: scores(some) for family, some in grouped(several, lambda v: v.family).items()
        },
        "exact_unguarded": share(one.right_unguarded for one in problems),
        "none_opened": {
            kind: {"answers": len(some), "share": share(one.opened_none for one in some)}
            for kind, some in kinds.items()
            if kind not in PARALLEL
        },
        "well_formed": {"all": formed(verdicts), "multi_part": formed(several)},
        "cut_by_max_tokens": sum(not one.finished for one in verdicts),
        "latency_by_branches": {
            group: latency(some) for group, some in grouped(timed, lambda t: t.group).items()
        },
        "timed_by_family": Counter(one.family for one in timed),
        "latency_multi_part": latency([one for one in timed if one.group != NONE]),
    }


def formed(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    return {
        "answers": len(verdicts),
        "guarded": share(one.well_formed for one in verdicts),
        "unguarded": share(one.well_formed_unguarded for one in verdicts),
    }


def scores(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    return {
        "problems": len(verdicts),
        "exact": share(one.right for one in verdicts),
        "twin_exact": share(one.twin_right for one in verdicts),
        # Both were asked the same problems: these two decide which is better.
        "only_this_right": sum(one.right and not one.twin_right for one in verdicts),
        "only_twin_right": sum(one.twin_right and not one.right for one in verdicts),
        "branches_as_asked": share(one.branches_as_asked for one in verdicts),
    }


def latency(timed: Sequence[Timed]) -> dict[str, Any]:
    """Over the pairs that can be compared; without one there are no times."""
    like = [one for one in timed if one.comparable]
    counts = {"pairs": len(like), "left_out": len(timed) - len(like)}
    if not like:
        return counts
    return {
        **counts,
        "seconds": quartiles([one.seconds for one in like]),
        "twin_seconds": quartiles([one.twin_seconds for one in like]),
        "tokens": statistics.median(one.tokens for one in like),
        "twin_tokens": statistics.median(one.twin_tokens for one in like),
        "degree_of_parallelism": quartiles([one.degree_of_parallelism for one in like]),
        # Above 1 the Multiverse model is faster.
        "ratio": quartiles([one.twin_seconds / one.seconds for one in like]),
    }


def quartiles(values: Sequence[float]) -> dict[str, float]:
    low, middle, high = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [*values] * 3
    )
    return {"q1": round(low, 4), "median": round(middle, 4), "q3": round(high, 4)}


def share(values: Iterable[bool]) -> float | None:
    """Of those that are true, to four places; `None` of nothing."""
    listed = list(values)
    return round(statistics.mean(listed), 4) if listed else None


def grouped(values: Iterable[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    """In the order in which the keys come."""
    found: dict[str, list[T]] = {}
    for value in values:
        found.setdefault(key(value), []).append(value)
    return found
