"""Scaling, and trained attacks: none scores a row with a classifier that was fitted on it."""

from dataclasses import replace
from threading import Barrier
from unittest import mock

import numpy as np
import pytest

from mia_bench.attack import Measured
from mia_bench.errors import NothingError
from mia_bench.fit import held_out, logistic, robust


def test_robust_scaling():
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert robust(values, values).tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert np.isfinite(robust(values, np.ones(5))).all()


def samples(n=24, cal=16, seed=0, groups=None):
    """n samples in a shuffled order, the first `cal` of them calibrating; features are their row numbers."""
    order = np.random.default_rng(seed).permutation(n)
    ids = tuple(f"s{i:03}" for i in order)
    of = groups or (lambda i: f"g{i}")
    features = order[:, None].astype(float)
    everything = Measured({"x": features}, ids, order >= cal, tuple(of(i) for i in order))
    part = everything.select(order < cal)
    numbers = np.array([int(i[1:]) for i in part.ids])
    return features, everything, replace(part, member=numbers % 2 == 0)


def memorising(seen=None):
    """Knows what it was fitted on: 1 for those rows, 0 for others."""

    def fit(x, member):
        known = set(x[:, 0])
        if seen is not None:
            seen.append((known, dict(zip(x[:, 0], member, strict=True))))
        return lambda rows: np.array([float(r in known) for r in rows[:, 0]])

    return fit


@pytest.mark.parametrize("folds", [2, 5])
def test_no_row_is_scored_by_a_classifier_fitted_on_it(folds):
    features, everything, calibration = samples()
    assert (held_out(features, everything, calibration, memorising(), folds) == 0).all()


def test_classifiers_see_the_calibration_set_alone_with_its_own_labels():
    features, everything, calibration = samples()
    seen = []
    held_out(features, everything, calibration, memorising(seen))
    assert max(len(known) for known, _ in seen) == 16
    for known, labels in seen:
        assert known <= set(range(16))
        assert all(member == (row % 2 == 0) for row, member in labels.items())


def test_every_fold_holds_both_classes_and_all_rows_are_tested():
    features, everything, calibration = samples()
    seen = []
    held_out(features, everything, calibration, memorising(seen), folds=4)
    folds = [labels for known, labels in seen if len(known) < 16]
    assert len(folds) == 4
    assert all(sum(labels.values()) == len(labels) / 2 == 6 for labels in folds)
    assert set.union(*(set(range(16)) - set(labels) for labels in folds)) == set(range(16))


def test_groups_stay_together():
    features, everything, calibration = samples(groups=lambda i: f"g{i // 4}")
    seen = []
    held_out(features, everything, calibration, memorising(seen), folds=2)
    for known, _ in seen:
        assert all({4 * g, 4 * g + 1, 4 * g + 2, 4 * g + 3} <= known for g in {int(i) // 4 for i in known})
    assert len(seen) == 3


def centroid(x, member):
    """Not symmetric in the order of rows: the first of each class counts more."""
    weights = np.linspace(2, 1, len(x))
    here, there = (np.average(x[rows, 0], weights=weights[rows]) for rows in (member, ~member))
    return lambda rows: np.abs(rows[:, 0] - there) - np.abs(rows[:, 0] - here)


def test_the_order_of_samples_does_not_matter():
    found = []
    for seed in (0, 1):
        features, everything, calibration = samples(seed=seed)
        values = held_out(features, everything, calibration, centroid)
        found.append(dict(zip(everything.ids, values, strict=True)))
    assert found[0] == found[1]


def test_fits_at_once_change_nothing():
    features, everything, calibration = samples()
    apart = held_out(features, everything, calibration, centroid)
    assert np.array_equal(held_out(features, everything, calibration, centroid, at_once=True), apart)


def test_fits_at_once_do_run_together():
    """Each waits until another has begun: one after the other, this would never end."""
    features, everything, calibration = samples()
    together = Barrier(2, timeout=30)

    def fit(x, member):
        together.wait()
        return lambda rows: np.zeros(len(rows))

    with mock.patch("os.sched_getaffinity", return_value={0, 1}):
        held_out(features, everything, calibration, fit, folds=3, at_once=True)


def test_other_samples_do_not_matter():
    features, everything, calibration = samples()
    whole = dict(zip(everything.ids, held_out(features, everything, calibration, centroid), strict=True))
    kept = ~everything.audit | (features[:, 0] == 20)
    few = everything.select(kept)
    part = dict(zip(few.ids, held_out(features[kept], few, calibration, centroid), strict=True))
    assert part == {i: whole[i] for i in few.ids}


def test_a_calibration_set_alone_is_scored_out_of_fold():
    features, everything, calibration = samples(n=16)
    assert (held_out(features, everything, calibration, memorising()) == 0).all()


def test_what_is_refused():
    features, everything, calibration = samples()
    with pytest.raises(NothingError, match="no calibration set"):
        held_out(features, everything, None, memorising())
    one = replace(calibration, groups=("g",) * 16)
    with pytest.raises(NothingError, match="1 groups, 2 are needed"):
        held_out(features, everything, one, memorising())


def test_the_regression_is_at_its_optimum():
    """Of the summed log loss plus half the squared weights, on features of mean 0 and variance 1."""
    rng = np.random.default_rng(1)
    x, member = rng.normal(3, [0.1, 10.0], (40, 2)), rng.random(40) < 0.5
    predict = logistic(x, member)
    z, mean, scale = (x - x.mean(0)) / x.std(0), x.mean(0), x.std(0)
    bias = predict(mean[None])
    weights = predict(mean + np.diag(scale)) - bias
    error = 1 / (1 + np.exp(-predict(x))) - member
    assert weights + error @ z == pytest.approx([0, 0], abs=1e-2) and error.sum() == pytest.approx(0, abs=1e-2)
