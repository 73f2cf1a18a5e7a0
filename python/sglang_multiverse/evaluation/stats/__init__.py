"""Estimates with intervals, and paired tests. Knows nothing of endpoints and records."""

from .bootstrap import Estimate, estimate, resampled_means
from .estimators import majority, pass_at_k, ranks
from .paired import Paired, compare, holm, sign_test
from .quantiles import quantile

__all__ = [
    "Estimate",
    "Paired",
    "compare",
    "estimate",
    "holm",
    "majority",
    "pass_at_k",
    "quantile",
    "ranks",
    "resampled_means",
    "sign_test",
]
