"""DeLong's variance, its interval's coverage, the fallback near 0 and 1, and the paired test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from mia_bench.metrics import (
    Estimate,
    auc,
    auc_interval,
    delong_covariance,
    exact_roc,
    newcombe,
    paired_delong,
    resample,
)
from mia_bench.metrics.inputs import BoolArray, FloatArray


def binormal(
    rng: np.random.Generator, n_pos: int, n_neg: int, true_auc: float, spread: float = 1.0
) -> tuple[FloatArray, BoolArray]:
    """Members from N(d, spread²), non-members from N(0, 1), d such that the AUC is `true_auc`."""
    shift = norm.ppf(true_auc) * math.hypot(1, spread)
    scores = np.concatenate([rng.normal(shift, spread, n_pos), rng.normal(size=n_neg)])
    return scores, np.arange(n_pos + n_neg) < n_pos


def by_all_pairs(scores: list[FloatArray], member: BoolArray) -> tuple[FloatArray, FloatArray]:
    """AUCs and covariance from the matrix of all pairs, as DeLong et al. write it."""
    wins = []
    for values in scores:
        pos, neg = values[member][:, None], values[~member][None, :]
        wins.append((pos > neg) + 0.5 * (pos == neg))
    of_pos = np.array([w.mean(axis=1) for w in wins])
    of_neg = np.array([w.mean(axis=0) for w in wins])
    m, n = wins[0].shape
    return np.array([w.mean() for w in wins]), np.cov(of_pos) / m + np.cov(of_neg) / n


def ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.high


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_midranks_give_what_all_pairs_give(digits: int) -> None:
    rng = np.random.default_rng(digits)
    member = np.arange(90) < 35
    scores = [np.array(rng.normal(size=90) + s * member).round(digits) for s in (0.2, 0.8, 1.5)]
    aucs, covariance = delong_covariance(scores, member)
    slow_aucs, slow_covariance = by_all_pairs(scores, member)
    np.testing.assert_allclose(aucs, slow_aucs, atol=1e-13)
    np.testing.assert_allclose(covariance, slow_covariance, atol=1e-15)


def test_the_interval_is_normal_on_the_logit_scale() -> None:
    scores, member = binormal(np.random.default_rng(1), 80, 120, 0.8)
    estimate = auc_interval(scores, member, level=0.9)
    value, variance = auc(scores, member), delong_covariance([scores], member)[1][0, 0]
    half = norm.ppf(0.95) * math.sqrt(variance) / (value * (1 - value))
    logit = math.log(value / (1 - value))
    expected = [1 / (1 + math.exp(-(logit + side * half))) for side in (-1, 1)]
    assert estimate.method == "delong-logit"
    assert estimate.value == pytest.approx(value, abs=1e-14)
    assert ends(estimate) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n_pos", "n_neg", "true_auc"), [(200, 300, 0.55), (150, 400, 0.8), (300, 300, 0.95)])
def test_delong_agrees_with_the_bootstrap(n_pos: int, n_neg: int, true_auc: float) -> None:
    scores, member = binormal(np.random.default_rng(2), n_pos, n_neg, true_auc)
    draws = resample(exact_roc(scores, member), n_resamples=2000).auc
    variance = delong_covariance([scores], member)[1][0, 0]
    assert draws.mean() == pytest.approx(auc(scores, member), abs=0.003)
    assert draws.std() == pytest.approx(math.sqrt(variance), rel=0.06)
    assert ends(auc_interval(scores, member)) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.012)


SIZES = [(3, 3), (5, 5), (8, 200), (200, 8), (20, 20), (30, 30), (20, 500), (100, 100)]


@pytest.mark.parametrize(("n_pos", "n_neg"), SIZES)
@pytest.mark.parametrize("true_auc", [0.5, 0.8, 0.95, 0.99, 0.998])
def test_the_interval_covers_the_true_auc(n_pos: int, n_neg: int, true_auc: float) -> None:
    """Nominal 95 %; DeLong alone covers 84 % at (20, 500) with AUC 0.99 and 0 % at (5, 5) with 0.998."""
    rng = np.random.default_rng(n_pos * 1000 + n_neg)
    found = [auc_interval(*binormal(rng, n_pos, n_neg, true_auc)) for _ in range(400)]
    low, high = np.array([ends(one) for one in found]).T
    covered = float(((low <= true_auc) & (true_auc <= high)).mean())
    # 400 draws of a share of 0.94 vary by 0.012; three samples a class have too few outcomes to hit 95 %.
    assert covered >= (0.88 if n_pos == 3 else 0.915)
    spread = np.std(np.array([one.value for one in found], dtype=float))
    if n_pos > 3 and true_auc <= 0.95:
        assert (high - low).mean() < 1.9 * 3.92 * spread  # covers by being right, not by being wide
    assert (high - low).mean() < 1.1 * np.subtract(*newcombe(0.5, n_pos, n_neg)[::-1]) + 0.15


@pytest.mark.parametrize("spread", [3.0, 1 / 3])
@pytest.mark.parametrize(("n_pos", "n_neg"), [(8, 200), (20, 20), (30, 30), (100, 100)])
@pytest.mark.parametrize("true_auc", [0.8, 0.99])
def test_coverage_survives_unequal_spreads(n_pos: int, n_neg: int, true_auc: float, spread: float) -> None:
    rng = np.random.default_rng(7)
    found = [ends(auc_interval(*binormal(rng, n_pos, n_neg, true_auc, spread))) for _ in range(300)]
    low, high = np.array(found).T
    assert ((low <= true_auc) & (true_auc <= high)).mean() >= 0.86


@pytest.mark.parametrize(("n_pos", "n_neg"), [(5, 5), (8, 200), (30, 30)])
@pytest.mark.parametrize("true_auc", [0.5, 0.8, 0.95, 0.99, 0.998])
def test_newcombe_alone_covers_the_true_auc(n_pos: int, n_neg: int, true_auc: float) -> None:
    rng = np.random.default_rng(11)
    aucs = [auc(*binormal(rng, n_pos, n_neg, true_auc)) for _ in range(400)]
    low, high = np.array([newcombe(value, n_pos, n_neg) for value in aucs]).T
    assert ((low <= true_auc) & (true_auc <= high)).mean() >= 0.92


def test_newcombe_solves_its_equation_and_swaps_with_the_classes() -> None:
    low, high = newcombe(0.9, 12, 30)
    for end in (low, high):
        bracket = 1 + 20 * ((1 - end) / (2 - end) + end / (1 + end))
        variance = end * (1 - end) * bracket / (12 * 30)
        assert abs(0.9 - end) == pytest.approx(norm.ppf(0.975) * math.sqrt(variance), rel=1e-9)
    assert newcombe(0.1, 30, 12) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_the_method_follows_the_data() -> None:
    member = np.arange(40) < 20
    separated = member + np.linspace(0, 0.5, 40)
    perfect = auc_interval(separated, member)
    assert (perfect.value, perfect.method, perfect.high) == (1.0, "newcombe", 1.0)
    assert ends(perfect)[0] == pytest.approx(newcombe(1.0, 20, 20)[0])
    worst = auc_interval(-separated, member)
    assert (worst.value, worst.method, worst.low) == (0.0, "newcombe", 0.0)
    constant = auc_interval(np.zeros(40), member)
    assert (constant.value, constant.method) == (0.5, "newcombe")
    single = auc_interval([1.0, 2.0, 3.0], [False, True, False])
    assert (single.value, single.method) == (0.5, "newcombe")
    nearly = separated.copy()
    nearly[np.flatnonzero(member)[0]] = 0.97 * nearly[~member].max()
    assert auc_interval(nearly, member).method == "newcombe+delong"
    few = binormal(np.random.default_rng(0), 9, 500, 0.6)
    assert auc_interval(*few).method == "newcombe+delong"
    assert auc_interval(*binormal(np.random.default_rng(0), 10, 500, 0.6)).method == "delong-logit"


def test_the_order_of_the_samples_does_not_change_a_bit() -> None:
    rng = np.random.default_rng(3)
    scores, member = binormal(rng, 7, 900, 0.7)  # sizes at which a sum in another order does round apart
    first = auc_interval(scores, member)
    for _ in range(20):
        order = rng.permutation(member.size)
        assert auc_interval(scores[order], member[order]) == first


@pytest.mark.parametrize("kind", ["members", "non-members"])
def test_one_class_is_undefined_with_a_reason(kind: str) -> None:
    member = np.full(12, kind == "members")
    reason = f"all 12 audit samples are {kind}: nothing to compare with"
    assert auc_interval(np.arange(12.0), member) == Estimate(None, None, None, 0.95, "", reason)
    paired = paired_delong(np.arange(12.0), np.arange(12.0), member)
    assert (paired.difference.value, paired.difference.reason, paired.p_value) == (None, reason, None)


def test_the_paired_test_uses_the_covariance() -> None:
    rng = np.random.default_rng(5)
    member = np.arange(200) < 100
    common = rng.normal(size=200)
    a = common + 0.4 * rng.normal(size=200) + 0.9 * member
    b = common + 0.4 * rng.normal(size=200) + 0.55 * member
    found = paired_delong(a, b, member)
    aucs, covariance = by_all_pairs([a, b], member)
    spread = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    difference = aucs[0] - aucs[1]
    assert found.difference.value == pytest.approx(difference, abs=1e-13)
    assert ends(found.difference) == pytest.approx(
        (difference - 1.959964 * spread, difference + 1.959964 * spread), abs=1e-6
    )
    assert found.p_value == pytest.approx(2 * norm.sf(abs(difference) / spread), rel=1e-9)
    # What pairing is for: each interval alone holds the other's AUC.
    assert found.p_value is not None
    assert found.p_value < 0.05
    assert ends(auc_interval(b, member))[1] > aucs[0]
    swapped = paired_delong(b, a, member)
    assert swapped.difference.value == pytest.approx(-difference)
    assert swapped.p_value == pytest.approx(found.p_value)


def test_the_paired_test_keeps_its_level() -> None:
    rng = np.random.default_rng(6)
    member = np.arange(80) < 40
    rejected = 0
    for _ in range(400):
        common = rng.normal(size=80) + 0.8 * member
        p_value = paired_delong(common + rng.normal(size=80), common + rng.normal(size=80), member).p_value
        assert p_value is not None
        rejected += p_value < 0.05
    assert 0.02 <= rejected / 400 <= 0.08


def test_paired_edges() -> None:
    member = np.arange(20) < 10
    scores = np.random.default_rng(0).normal(size=20)
    same = paired_delong(scores, np.exp(scores), member)
    assert (same.difference.value, ends(same.difference), same.p_value) == (0.0, (0.0, 0.0), 1.0)
    perfect = member + 0.01 * scores
    both = paired_delong(perfect, member - 0.01 * scores, member)
    assert both.difference.value is None
    assert "no estimated spread" in str(both.difference.reason)
    alone = paired_delong([1.0, 2.0, 3.0], [3.0, 2.0, 1.0], [True, False, False])
    assert "single sample" in str(alone.difference.reason)
    with pytest.raises(ValueError, match="two samples of each class"):
        delong_covariance([np.arange(3.0)], np.array([True, False, False]))


def placements(values: FloatArray, member: BoolArray) -> tuple[float, float]:
    """AUC and variance from kernels pair by pair, without arrays: DeLong et al., eq. 4 to 6, as written."""
    ours, theirs = values[member].tolist(), values[~member].tolist()

    def kernel(x: float, y: float) -> float:
        return 1.0 if x > y else 0.5 if x == y else 0.0

    v10 = [sum(kernel(x, y) for y in theirs) / len(theirs) for x in ours]
    v01 = [sum(kernel(x, y) for x in ours) / len(ours) for y in theirs]
    theta = sum(v10) / len(v10)
    s10, s01 = (sum((v - theta) ** 2 for v in part) / (len(part) - 1) for part in (v10, v01))
    return theta, s10 / len(v10) + s01 / len(v01)


@st.composite
def tied(draw: st.DrawFn) -> tuple[FloatArray, BoolArray]:
    """Two to 30 samples of each class, in any order, ties likely, infinite scores too."""
    n_pos, n_neg = draw(st.integers(2, 30)), draw(st.integers(2, 30))
    value = st.one_of(st.integers(-3, 3).map(float), st.floats(allow_nan=False))
    values = draw(st.lists(value, min_size=n_pos + n_neg, max_size=n_pos + n_neg))
    member = draw(st.permutations([True] * n_pos + [False] * n_neg))
    return np.array(values), np.array(member)


@settings(max_examples=200, deadline=None)
@given(tied())
def test_delong_agrees_with_a_second_implementation(of: tuple[FloatArray, BoolArray]) -> None:
    values, member = of
    aucs, covariance = delong_covariance([values, -values], member)
    theta, variance = placements(values, member)
    assert aucs == pytest.approx([theta, 1 - theta], abs=1e-12)
    assert covariance == pytest.approx(variance * np.array([[1, -1], [-1, 1]]), abs=1e-12)
    assert auc(values, member) == pytest.approx(theta, abs=1e-12)
