"""What several samples of one problem say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Probability that at least one of `k` samples drawn without replacement is right.

    Unbiased for the chance that one of k independent answers is right: 1 − C(n−c, k) ÷ C(n, k)
    (Chen et al. 2021, arXiv 2107.03374).

    Raises:
        ValueError: not 0 ≤ right ≤ samples, or not 1 ≤ k ≤ samples.
    """
    if not (0 <= right <= samples and 1 <= k <= samples):
        raise ValueError(f"pass@{k} of {right} right in {samples} samples")
    return 1 - comb(samples - right, k) / comb(samples, k)


def majority(votes: Sequence[tuple[str | None, bool]]) -> float:
    """Whether the answer given most often is right; a tie counts by its share of right answers.

    That is the expectation when ties are broken by lot. What the grader takes for right is one
    answer, however it is written; no answer is no vote.

    Args:
        votes: of each sample, the final answer and whether it is right.
    """
    counts: Counter[str | None] = Counter()
    for answer, right in votes:
        if right:
            counts[None] += 1
        elif answer is not None:
            counts[answer] += 1
    if not counts:
        return 0.0
    most = max(counts.values())
    winners = [answer for answer, count in counts.items() if count == most]
    return (None in winners) / len(winners)


def ranks(samples: int) -> list[int]:
    """The k of which pass@k is told: powers of two above 1, and the number of samples."""
    found = [2**i for i in range(1, samples.bit_length()) if 2**i < samples]
    return [*found, samples] if samples > 1 else []
