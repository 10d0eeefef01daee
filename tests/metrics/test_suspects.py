"""Samples of unknown membership against thresholds from known non-members alone."""

from __future__ import annotations

import numpy as np
import pytest

from mia_bench.metrics import exceeding, threshold_at


def test_a_threshold_lets_no_more_non_members_pass_than_allowed():
    scores = np.arange(200.0)
    for rate, passing in ((0.0, 0), (0.01, 1), (0.05, 9), (0.999, 199)):
        assert (scores >= threshold_at(scores, rate)).sum() == passing
    assert threshold_at(scores[:98], 0.01) == np.inf and np.isfinite(threshold_at(scores[:99], 0.01))
    assert threshold_at(scores, 1.0) == -np.inf
    tied = np.array([5.0] * 30 + [1.0] * 70)
    assert (tied >= threshold_at(tied, 0.05)).sum() == 0, "five of thirty equals cannot be told apart"


def test_it_is_decided_by_the_non_members_alone():
    known = np.random.default_rng(0).normal(size=400)
    few, many = (exceeding(suspects, known) for suspects in ([9.0], [9.0, 8.0, 2.5, -1.0]))
    for one, other in zip(few.rates, many.rates, strict=True):
        assert one.share.threshold == other.share.threshold == threshold_at(known, one.max_fpr)
        assert (one.share.count, one.share.realised) == (400 * one.max_fpr - 1, one.max_fpr - 1 / 400)


def test_counts_and_shares():
    known = np.arange(1000.0)
    found = exceeding([2000.0] * 30 + [975.0] * 20 + [0.0] * 50, known)
    assert (found.n, found.n_nonmembers) == (100, 1000)
    assert [(r.max_fpr, r.above, r.share.value, r.share.status) for r in found.rates] == [
        (0.01, 30, 0.3, "ok"),
        (0.05, 50, 0.5, "ok"),
    ]
    for rate in found.rates:
        assert rate.share.low < rate.share.value < rate.share.high


def test_few_non_members_resolve_no_small_rate():
    low, high = exceeding([1.0, 2.0], np.arange(50.0)).rates
    assert (low.above, low.share.value, low.share.status) == (None, None, "undefined")
    assert "1 % of 50 non-members" in low.share.reason
    assert (high.above, high.share.status, high.share.count) == (0, "flagged", 1)


def test_an_infinite_score_of_a_non_member_is_never_passed():
    known = np.concatenate([np.full(20, np.inf), np.arange(180.0)])
    for rate in exceeding([np.inf, 300.0], known).rates:
        assert (rate.above, rate.share.count, rate.share.threshold) == (0, 0, np.inf)


def test_the_rate_holds_on_new_non_members():
    source = np.random.default_rng(1)
    shares = []
    for _ in range(2000):
        new, known = source.normal(size=500), source.normal(size=120)
        shares.append([np.mean(new >= threshold_at(known, rate)) for rate in (0.01, 0.05)])
    low, high = np.mean(shares, axis=0)
    assert 0.0075 < low < 0.0105 and 0.045 < high < 0.0525  # 1 / 121 and 6 / 121 are to be expected


@pytest.mark.parametrize(("suspects", "known"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_what_cannot_be_counted(suspects, known):
    with pytest.raises(ValueError):
        exceeding(suspects, known)
