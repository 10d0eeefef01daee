"""What is fitted on the calibration set: scaling, and classifiers, never asked about a row they were fitted on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from mia_bench.errors import NothingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mia_bench.attack import Measured

Predict = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]
Fit = Callable[["NDArray[np.float64]", "NDArray[np.bool_]"], Predict]
TAG = "label-assisted"  # shown beside the row: it saw labels that an attacker need not have
TRANSDUCTIVE = "transductive"  # a score depends on the other samples: what calibrates is the unlabelled audit set


def robust(values: NDArray[np.float64], fitted_on: NDArray[np.float64]) -> NDArray[np.float64]:
    """(value - median) / interquartile range, both of `fitted_on`; the range is taken for 1e-8 at least."""
    low, middle, high = np.percentile(fitted_on, [25, 50, 75])
    scaled: NDArray[np.float64] = (values - middle) / max(high - low, 1e-8)
    return scaled


def held_out(
    features: NDArray[np.float64],
    measured: Measured,
    calibration: Measured | None,
    fit: Fit,
    folds: int = 5,
    at_once: bool = False,
) -> NDArray[np.float64]:
    """Scores from classifiers that were not fitted on what they score.

    Samples outside the calibration set are scored by the classifier of the whole calibration set; each calibration
    sample by that of the other folds, so that a threshold chosen on them is fair. Folds are stratified, keep groups
    together, and depend on the ids alone.

    Args:
        features: `(N, ...)`, a row for each sample of `measured`.
        measured: All samples of the run.
        calibration: The labelled ones among them.
        fit: `(X (n, ...), member bool (n,)) -> predict`, where `predict(X)` gives scores, higher = member.
        folds: How many; fewer where the rarer class has fewer groups.
        at_once: Run fits side by side, one a core; `fit` must be safe to run in threads, as `resnet.trained` is.

    Returns:
        float64 `(N,)`.

    Raises:
        NothingError: There is no calibration set, or one class of it has fewer than two groups.
    """
    if calibration is None or calibration.member is None:
        raise NothingError("a trained attack", "there is no calibration set", "use a dataset that has one")
    place = {i: row for row, i in enumerate(measured.ids)}
    order = sorted(range(len(calibration.ids)), key=calibration.ids.__getitem__)
    rows = np.array([place[calibration.ids[i]] for i in order])
    member, groups = calibration.member[order], np.array(calibration.groups)[order]
    own, everyone = features[rows], np.arange(len(rows))
    others = np.setdiff1d(np.arange(len(features)), rows)
    ids = [calibration.ids[i] for i in order]
    jobs = [(train, rows[test]) for train, test in grouped_folds(ids, groups, member, folds)]
    if len(others):
        jobs.insert(0, (everyone, others))  # the longest first

    def job(train: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[np.float64]:
        return fit(own[train], member[train])(features[test])

    scores = np.empty(len(features))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if at_once else 1) as pool:
        for (_, test), values in zip(jobs, pool.map(job, *zip(*jobs, strict=True)), strict=True):
            scores[test] = values
    return scores


def grouped_folds(
    ids: Sequence[str], groups: NDArray[np.str_], member: NDArray[np.bool_], folds: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Train and test rows of each fold: stratified, groups kept together, by the ids alone whatever their order.

    Args:
        ids: Sample ids, length n.
        groups: Their groups, `(n,)`.
        member: Their labels, `(n,)`.
        folds: How many; fewer where the rarer class has fewer groups.

    Raises:
        NothingError: One class has fewer than two groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    least = min(len(set(groups[member])), len(set(groups[~member])))
    if least < 2:
        why = f"the smaller class of the calibration set has {least} groups, 2 are needed"
        raise NothingError("a trained attack", why, "calibrate on more samples")
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__))
    splitter = StratifiedGroupKFold(min(folds, least), shuffle=True, random_state=0)
    divided = splitter.split(order, member[order], groups[order])
    return [(order[train], order[test]) for train, test in divided]


class Logistic:
    """Log-odds of membership from standardised features `(n, D)`; penalty L2, C = 1.

    Attributes:
        weights: Of the standardised features, `(D,)`.
    """

    def __init__(self, features: NDArray[np.float64], member: NDArray[np.bool_]) -> None:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits

        self.model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0))
        with threadpool_limits(1):  # the same sums on any number of cores
            self.model.fit(features, member)
        self.weights: NDArray[np.float64] = self.model[-1].coef_[0]

    def __call__(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = self.model.decision_function(rows)
        return scores


def logistic(features: NDArray[np.float64], member: NDArray[np.bool_]) -> Logistic:
    """Fit one, as `held_out` wants it."""
    return Logistic(features, member)
