"""Intervals by the bootstrap over problems: which problems a task has is the lottery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 2**22
"""Most numbers drawn at once."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems with its interval.

    Attributes:
        value, low, high: `None` of no problems.
        problems: how many it is the mean of.
    """

    value: float | None
    low: float | None
    high: float | None
    problems: int


def resampled_means(
    strata: Sequence[NDArray[np.float64]], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Means over all values, each stratum drawn anew from itself. Shape [resamples].

    Args:
        strata: at least one value in all; the sizes stay as they are.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for values in strata:
        step = max(_AT_ONCE // max(len(values), 1), 1)
        for begin in range(0, resamples, step):
            rows = min(step, resamples - begin)
            drawn = rng.integers(0, len(values), size=(rows, len(values)))
            total[begin : begin + rows] += values[drawn].sum(axis=1)
    return total / sum(len(values) for values in strata)


def estimate(
    values: Sequence[float], *, resamples: int, confidence: float, seed: int = 0
) -> Estimate:
    """The mean of one value a problem, with a percentile bootstrap interval.

    Where all values are 0, or all are 1, resampling shows no spread; the interval is then the
    exact binomial one (Clopper and Pearson 1934), [0, 1 − (α/2)^(1/n)] or its mirror image.

    Args:
        values: in [0, 1] each.
    """
    found = np.asarray(values, dtype=np.float64)
    if not len(found):
        return Estimate(None, None, None, 0)
    value, tail = float(found.mean()), (1 - confidence) / 2
    if found.min() == found.max() and value in (0.0, 1.0):
        bound = 1 - tail ** (1 / len(found))
        low, high = (0.0, bound) if value == 0 else (1 - bound, 1.0)
        return Estimate(value, low, high, len(found))
    means = resampled_means([found], resamples, seed)
    low, high = (float(x) for x in np.quantile(means, [tail, 1 - tail]))
    return Estimate(value, low, high, len(found))
