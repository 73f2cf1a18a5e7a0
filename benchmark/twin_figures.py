"""What became of each problem in, figures out: what `bundled_model.py` writes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from figures import quartiles

T = TypeVar("T")
PARALLEL = ("flat", "nested")
"""The kinds of problems that ask for a block."""


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
        branches: of the outer block that the problem asks for; 0 for none.
        both_right: where one answer is wrong, the two did not do the same work.
    """

    branches: int
    both_right: bool
    seconds: float
    twin_seconds: float
    tokens: int
    twin_tokens: int
    degree_of_parallelism: float


def summary(verdicts: Sequence[Verdict], timed: Sequence[Timed]) -> dict[str, Any]:
    several = [one for one in verdicts if one.kind in PARALLEL]
    none = [one for one in verdicts if one.kind not in PARALLEL]
    return {
        "multi_part": scores(several),
        "all": scores(verdicts),
        "by_kind": {kind: scores(some) for kind, some in grouped(verdicts, lambda v: v.kind)},
        "multi_part_by_family": {
            family: scores(some) for family, some in grouped(several, lambda v: v.family)
        },
        "exact_unguarded": share(one.right_unguarded for one in verdicts),
        "none_opened_on_sequential": share(one.opened_none for one in none),
        "well_formed": share(one.well_formed for one in verdicts),
        "well_formed_unguarded": share(one.well_formed_unguarded for one in verdicts),
        "cut_by_max_tokens": sum(not one.finished for one in verdicts),
        "latency_by_branches": {
            str(count): latency(some) for count, some in grouped(timed, lambda t: t.branches)
        },
        "latency_multi_part": latency([one for one in timed if one.branches]),
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
    """Over the pairs in which both answers are right; without one there are no times."""
    like = [one for one in timed if one.both_right]
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


def share(values: Iterable[bool]) -> float | None:
    """Of those that are true, to four places; `None` of nothing."""
    listed = list(values)
    return round(statistics.mean(listed), 4) if listed else None


def grouped(values: Iterable[T], key: Callable[[T], Any]) -> list[tuple[Any, list[T]]]:
    found: dict[Any, list[T]] = {}
    for value in values:
        found.setdefault(key(value), []).append(value)
    return sorted(found.items())
