"""Exact ROC: against loops over every threshold, against scikit-learn, and by properties."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mia_bench.metrics import (
    asr_at,
    asr_oracle,
    auc,
    best_threshold,
    exact_roc,
    log_points,
    rates_at,
    tnr_at_fnr,
    tpr_at_fpr,
)
from mia_bench.metrics.inputs import BoolArray, FloatArray
from mia_bench.metrics.roc import allowed_count

Sample = tuple[FloatArray, BoolArray]

# Few distinct values make ties; infinite ones are allowed scores.
SCORE = st.one_of(st.integers(-4, 4).map(float), st.floats(-1e6, 1e6), st.sampled_from([math.inf, -math.inf, 1e-300]))
RATES = st.sampled_from(["0", "0.001", "0.01", "0.05", "0.1", "0.3", "0.5", "1"])


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Scores and labels with both classes there, in any order."""
    members = draw(st.lists(SCORE, min_size=1, max_size=25))
    others = draw(st.lists(SCORE, min_size=1, max_size=25))
    member = np.array([True] * len(members) + [False] * len(others))
    order = np.array(draw(st.permutations(range(member.size))))
    return np.array(members + others)[order], member[order]


def every_threshold(sample: Sample) -> list[tuple[float, int, int]]:
    """(threshold, false positives, true positives), by comparing every score with every threshold."""
    scores, member = sample
    points = [(math.inf, 0, 0)]
    for t in sorted(set(scores.tolist()), reverse=True):
        points.append((t, int(sum(scores[~member] >= t)), int(sum(scores[member] >= t))))
    return points


@given(samples())
def test_every_point_is_there_once(sample: Sample) -> None:
    roc = exact_roc(*sample)
    found = list(zip(roc.thresholds.tolist(), roc.fp.tolist(), roc.tp.tolist(), strict=True))
    assert found == every_threshold(sample)
    assert roc.fpr[-1] == roc.tpr[-1] == 1


@given(samples())
def test_auc_counts_pairs_and_half_ties(sample: Sample) -> None:
    scores, member = sample
    pos, neg = scores[member][:, None], scores[~member][None, :]
    wins = (pos > neg).mean() + (pos == neg).mean() / 2
    assert auc(scores, member) == pytest.approx(wins, abs=1e-12)
    if np.isfinite(scores).all():
        assert auc(scores, member) == pytest.approx(roc_auc_score(member, scores), abs=1e-12)


@given(samples())
def test_swapping_labels_reflects_the_auc(sample: Sample) -> None:
    scores, member = sample
    assert auc(scores, ~member) == pytest.approx(1 - auc(scores, member), abs=1e-12)
    assert auc(-scores, ~member) == pytest.approx(auc(scores, member), abs=1e-12)


@given(samples(), RATES)
def test_tpr_at_fpr_is_the_best_allowed_threshold(sample: Sample, rate: str) -> None:
    scores, member = sample
    n_neg, n_pos = int((~member).sum()), int(member.sum())
    allowed = [p for p in every_threshold(sample) if Fraction(p[1], n_neg) <= Fraction(rate)]
    point = tpr_at_fpr(exact_roc(scores, member), float(rate))
    assert point.value == max(tp for _, _, tp in allowed) / n_pos
    assert Fraction(point.count, n_neg) <= Fraction(rate)
    assert point.realised == point.count / n_neg
    # The threshold does what the numbers say; of equal TPRs it has the fewest false positives.
    assert point.count == min(fp for _, fp, tp in allowed if tp == point.hits)
    if point.threshold < math.inf:
        at = rates_at(scores, member, point.threshold)
        assert (at.tp, at.fp) == (point.hits, point.count)
    else:
        assert (point.hits, point.count) == (0, 0) or math.isinf(scores.max())


@given(samples())
def test_tpr_grows_with_the_allowed_fpr(sample: Sample) -> None:
    roc = exact_roc(*sample)
    values = [tpr_at_fpr(roc, rate).value for rate in np.linspace(0, 1, 23)]
    assert values == sorted(values)
    assert values[-1] == 1


@given(samples(), RATES)
def test_tnr_at_fnr_is_the_other_tail(sample: Sample, rate: str) -> None:
    scores, member = sample
    here = tnr_at_fnr(exact_roc(scores, member), float(rate))
    there = tpr_at_fpr(exact_roc(-scores, ~member), float(rate))
    assert (here.value, here.realised, here.count, here.hits) == (
        there.value,
        there.realised,
        there.count,
        there.hits,
    )
    if math.isfinite(here.threshold):
        at = rates_at(scores, member, here.threshold)
        assert (at.n_pos - at.tp, at.n_neg - at.fp) == (here.count, here.hits)


@given(samples())
def test_asr_oracle_is_the_largest_balanced_accuracy(sample: Sample) -> None:
    scores, member = sample
    n_neg, n_pos = int((~member).sum()), int(member.sum())
    best = max((tp / n_pos + 1 - fp / n_neg) / 2 for _, fp, tp in every_threshold(sample))
    point = asr_oracle(exact_roc(scores, member))
    assert point.value == pytest.approx(best, abs=1e-12)
    assert point.value >= 0.5
    if point.threshold < math.inf:
        assert asr_at(scores, member, point.threshold) == point.value


@given(samples())
def test_best_threshold_separates_its_own_set_best(sample: Sample) -> None:
    scores, member = sample
    threshold = best_threshold(scores, member)
    best = asr_oracle(exact_roc(scores, member)).value
    if threshold < math.inf or not np.isposinf(scores).any():
        assert asr_at(scores, member, threshold) == pytest.approx(best, abs=1e-12)


def test_best_threshold_lies_midway_and_says_nothing_at_chance() -> None:
    assert best_threshold([0.0, 1.0, 4.0, 9.0], [False, False, True, True]) == 2.5
    assert best_threshold([1.0, 1.0], [True, False]) == math.inf
    assert best_threshold([0.0, 1.0], [True, False]) == math.inf  # the wrong way round
    assert best_threshold([-1.7e308, 1.7e308], [False, True]) == 0
    assert best_threshold([1.5e308, 1.7e308], [False, True]) == pytest.approx(1.6e308)
    assert best_threshold([-math.inf, 3.0], [False, True]) == 3
    assert best_threshold([1.0, np.nextafter(1.0, 2)], [False, True]) == np.nextafter(1.0, 2)


def test_the_allowed_count_is_not_lost_to_rounding() -> None:
    assert 0.29 * 100 < 29
    assert allowed_count(0.29, 100) == 29
    for n in (300, 1000, 2500, 99_999):
        for k in range(0, n + 1, max(1, n // 300)):
            assert allowed_count(k / n, n) == k
    assert allowed_count(0.01, 99) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        allowed_count(1.5, 10)


def test_a_rate_that_nothing_reaches_is_zero_at_an_infinite_threshold() -> None:
    point = tpr_at_fpr(exact_roc([3.0, 2.0, 1.0], [False, True, True]), 0.01)
    assert (point.value, point.realised, point.count, point.threshold) == (0.0, 0.0, 0, math.inf)


@given(samples())
@settings(max_examples=50)
def test_order_does_not_matter(sample: Sample) -> None:
    scores, member = sample
    forth, back = exact_roc(scores, member), exact_roc(scores[::-1], member[::-1])
    assert forth.tp.tolist() == back.tp.tolist()
    assert forth.fp.tolist() == back.fp.tolist()


@given(samples())
def test_log_points_draw_the_whole_step_curve(sample: Sample) -> None:
    roc = exact_roc(*sample)
    fpr, tpr = log_points(roc)
    assert fpr[0] == 1 / roc.n_neg
    assert (fpr[-1], tpr[-1]) == (1, 1)
    assert sorted(set(fpr)) == fpr
    for k in range(1, roc.n_neg + 1):  # the step that holds at k false positives
        step = max(i for i, x in enumerate(fpr) if x <= k / roc.n_neg)
        assert tpr[step] == tpr_at_fpr(roc, k / roc.n_neg).value
    assert all(a < b for a, b in pairwise(tpr[:-1]))  # corners only


def test_log_points_of_a_long_curve_are_thinned_to_exact_ones() -> None:
    rng = np.random.default_rng(0)
    member = np.arange(20_000) % 2 == 0
    roc = exact_roc(rng.normal(size=member.size) + member, member)
    fpr, tpr = log_points(roc, max_points=100)
    assert 50 < len(fpr) <= 101
    assert (fpr[0], fpr[-1], tpr[-1]) == (1 / 10_000, 1, 1)
    assert all(tpr_at_fpr(roc, x).value == y for x, y in zip(fpr, tpr, strict=True))


def test_invalid_input_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="2 of 3 scores are NaN"):
        auc([math.nan, 1.0, math.nan], [True, False, True])
    with pytest.raises(ValueError, match=r"one length, not \(2,\) and \(3,\)"):
        auc([1.0, 2.0], [True, False, True])
    with pytest.raises(ValueError, match="labels must be true"):
        auc([1.0, 2.0], [1, 2])
    with pytest.raises(ValueError, match="all 2 audit samples are members"):
        auc([1.0, 2.0], [True, True])
    with pytest.raises(ValueError, match="threshold is NaN"):
        asr_at([1.0, 2.0], [True, False], math.nan)
    assert auc([1, 2], [0, 1]) == 1  # integers of 0 and 1 will do
