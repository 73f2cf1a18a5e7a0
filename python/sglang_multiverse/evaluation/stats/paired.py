"""Two sides that were asked the same problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from .bootstrap import resampled_means


@dataclass(frozen=True, slots=True)
class Paired:
    """B against A on the same problems.

    Attributes:
        difference, low, high: mean of B − A over problems, with its paired bootstrap interval.
        better, worse: problems on which B is above A, and below.
        p: of the exact sign test on these; with one sample a problem it is McNemar's.
        shown: +1 or −1 where both the interval and the test show a difference, else 0.
    """

    problems: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    better: int
    worse: int
    p: float
    shown: int


def sign_test(better: int, worse: int) -> float:
    """Two-sided exact probability of a split at least as uneven, were both sides as likely.

    On right and wrong this is McNemar's exact test: min(1, 2 Σ_{i ≤ min} C(n, i) ÷ 2ⁿ).
    """
    discordant = better + worse
    tail = sum(comb(discordant, i) for i in range(min(better, worse) + 1))
    return min(1.0, float(2 * tail / 2**discordant))


def compare(
    strata: Sequence[Sequence[tuple[float, float]]],
    *,
    resamples: int,
    confidence: float,
    seed: int = 0,
) -> Paired:
    """Two sides' accuracies, problem by problem.

    Args:
        strata: of each task, (A's, B's) share of right answers for each problem; at least one
            problem in all. Resampling keeps the tasks' sizes.
    """
    pairs = [np.asarray(some, dtype=np.float64) for some in strata if some]
    differences = [some[:, 1] - some[:, 0] for some in pairs]
    together = np.concatenate(differences)
    tail = (1 - confidence) / 2
    means = resampled_means(differences, resamples, seed)
    low, high = (float(x) for x in np.quantile(means, [tail, 1 - tail]))
    # Shares of few samples are the same number or differ by far more than rounding.
    better, worse = int((together > 1e-9).sum()), int((together < -1e-9).sum())
    p = sign_test(better, worse)
    sure = p <= 1 - confidence
    both = np.concatenate(pairs)
    return Paired(
        problems=len(together),
        a=float(both[:, 0].mean()),
        b=float(both[:, 1].mean()),
        difference=float(together.mean()),
        low=low,
        high=high,
        better=better,
        worse=worse,
        p=p,
        shown=(low > 0) - (high < 0) if sure else 0,
    )


def holm(values: Sequence[float]) -> list[float]:
    """Probabilities adjusted for their number by Holm's step-down method (1979)."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        adjusted[place] = largest
    return adjusted
