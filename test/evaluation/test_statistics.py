"""Estimates against closed forms, enumeration and scipy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sglang_multiverse.evaluation.stats import (
    compare,
    estimate,
    holm,
    majority,
    pass_at_k,
    quantile,
    ranks,
    resampled_means,
    sign_test,
)

scipy_stats = pytest.importorskip("scipy.stats")


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_pass_at_k_is_the_share_of_draws_that_hold_a_right_one(sizes):
    samples, right = sizes
    outcomes = [True] * right + [False] * (samples - right)
    for k in range(1, samples + 1):
        draws = list(itertools.combinations(outcomes, k))
        share = sum(any(draw) for draw in draws) / len(draws)
        assert pass_at_k(samples, right, k) == pytest.approx(share, abs=1e-12)
        hypergeometric = scipy_stats.hypergeom(samples, right, k)
        assert pass_at_k(samples, right, k) == pytest.approx(1 - hypergeometric.pmf(0), abs=1e-9)


def test_pass_at_k_is_unbiased():
    """The mean over samples of n = 5 is the chance 1 − (1 − p)^k, exactly."""
    p, n, k = 0.3, 5, 3
    mean = sum(
        math.comb(n, right) * p**right * (1 - p) ** (n - right) * pass_at_k(n, right, k)
        for right in range(n + 1)
    )
    assert mean == pytest.approx(1 - (1 - p) ** k)


@pytest.mark.parametrize("wrong", [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_pass_at_k_of_what_cannot_be(wrong):
    with pytest.raises(ValueError, match="right in"):
        pass_at_k(*wrong)


@pytest.mark.parametrize(
    ("votes", "value"),
    [
        ([("7", True), ("7", True), ("8", False)], 1.0),
        ([("7", True), ("8", False), ("8", False)], 0.0),
        ([("7", True), ("8", False)], 0.5),
        ([("7", True), ("8", False), ("9", False)], 1 / 3),
        # However a right answer is written, it is one answer; what is none has no vote.
        ([("0.5", True), ("1/2", True), ("8", False)], 1.0),
        ([(None, False), (None, False), ("7", True)], 1.0),
        ([(None, False)], 0.0),
        ([], 0.0),
    ],
)
def test_majority(votes, value):
    assert majority(votes) == pytest.approx(value)


def test_the_ranks_that_are_told():
    assert [ranks(n) for n in (1, 2, 3, 8, 12)] == [[], [2], [2, 3], [2, 4, 8], [2, 4, 8, 12]]


def test_the_interval_is_scipys():
    values = np.random.default_rng(1).random(50) ** 3
    mine = estimate(values, resamples=20_000, confidence=0.95)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=2
    ).confidence_interval
    assert mine.value == pytest.approx(values.mean())
    assert (mine.low, mine.high) == pytest.approx(tuple(theirs), abs=0.004)
    again = estimate(values, resamples=20_000, confidence=0.95)
    assert again == mine


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """Of 40 problems with a chance of 0.4 each; 90 % intervals, 400 times."""
    rng = np.random.default_rng(3)
    held = 0
    for seed in range(400):
        found = estimate(rng.random(40) < 0.4, resamples=400, confidence=0.9, seed=seed)
        held += found.low <= 0.4 <= found.high
    assert 0.85 < held / 400 < 0.95


@pytest.mark.parametrize(("value", "right"), [(1.0, 30), (0.0, 0)])
def test_without_a_spread_the_interval_is_the_exact_one(value, right):
    found = estimate([value] * 30, resamples=100, confidence=0.95)
    exact = scipy_stats.binomtest(right, 30).proportion_ci(0.95, method="exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_of_nothing_there_is_no_estimate():
    found = estimate([], resamples=100, confidence=0.95)
    assert (found.value, found.low, found.problems) == (None, None, 0)


def test_strata_keep_their_sizes():
    """A stratum without a spread adds none: only the other one's counts."""
    fixed, free = np.ones(100), np.array([0.0, 1.0] * 50)
    means = resampled_means([fixed, free], 5000, 0)
    assert means.std() == pytest.approx(0.5 / math.sqrt(100) / 2, rel=0.05)
    assert means.mean() == pytest.approx(0.75, abs=0.002)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_the_binomial_one(better, worse):
    expected = scipy_stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert sign_test(better, worse) == pytest.approx(expected)


def test_mcnemars_example():
    """Ten discordant pairs, nine one way: 2 · 11 ÷ 1024."""
    pairs = [(0.0, 1.0)] * 9 + [(1.0, 0.0)] + [(1.0, 1.0)] * 40
    found = compare([pairs], resamples=2000, confidence=0.95)
    assert found.p == pytest.approx(22 / 1024)
    assert (found.better, found.worse, found.problems) == (9, 1, 50)
    assert found.difference == pytest.approx(8 / 50) and found.shown == 1
    flipped = compare([[(b, a) for a, b in pairs]], resamples=2000, confidence=0.95)
    assert flipped.shown == -1 and flipped.p == found.p


def test_no_difference_is_said_where_one_of_both_does_not_show_it():
    # Five to nothing: the interval leaves out 0, the exact test does not (p = 1/16).
    found = compare([[(0.0, 1.0)] * 5 + [(1.0, 1.0)] * 20], resamples=4000, confidence=0.95)
    assert found.low > 0 and found.p == pytest.approx(1 / 16) and found.shown == 0
    same = compare([[(0.5, 0.5)] * 9], resamples=100, confidence=0.95)
    assert (same.difference, same.p, same.shown) == (0.0, 1.0, 0)


def test_equal_models_are_seldom_told_apart():
    rng = np.random.default_rng(5)
    shown = 0
    for seed in range(200):
        pairs = [tuple(pair) for pair in (rng.random((40, 2)) < 0.6).astype(float)]
        shown += compare([pairs], resamples=300, confidence=0.95, seed=seed).shown != 0
    assert shown / 200 < 0.06


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0, 1))
def test_quantiles_are_numpys(values, share):
    assert quantile(values, share) == pytest.approx(np.quantile(values, share), abs=1e-6)
