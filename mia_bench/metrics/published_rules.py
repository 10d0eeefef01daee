"""The same scores by the rules of published evaluators: why printed numbers differ where scores do not.

"TPR at 1 % FPR" and "ASR" are each computed in several ways. Here they are as the released programs of the papers have
them, to be shown beside our own rule (`mia_bench.metrics.roc`), never in place of it. Scores are float64 `(N,)`,
**higher = member**, as everywhere here; those programs have lower = member, so their `score <= threshold` is `>=` here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from mia_bench.metrics.inputs import BoolArray, FloatArray, checked, why_no_comparison
from mia_bench.metrics.roc import Rates, exact_roc, rates_at, roc_auc

TAILS = (0.01, 0.001)
"""Allowed error rates."""


@dataclass(frozen=True)
class Point:
    """What a rule prints for an allowed error rate, and the error rate that its threshold really has.

    Attributes:
        value: As printed, 0 to 1.
        error: FPR, or where hold-outs are the positives the share of members lost.
    """

    value: float
    error: float


@dataclass(frozen=True)
class ByRule:
    """One set of scores by one rule; None where the program computes no such number.

    Attributes:
        auc: Area under its curve.
        asr: What it calls attack success rate.
        tails: Allowed error rate -> its point.
        carried: Allowed error rate -> rates at the threshold that it takes over from another set.
    """

    auc: float | None
    asr: float | None
    tails: dict[float, Point]
    carried: dict[float, Rates] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Labelled:
    """Scores `(N,)` with labels `(N,)`, both classes there; checked by `labelled`."""

    scores: FloatArray
    member: BoolArray


def labelled(scores: ArrayLike, member: ArrayLike) -> Labelled:
    """Check scores and labels.

    Raises:
        ValueError: They are not valid, or a class is missing.
    """
    values, is_member = checked(scores, member)
    if reason := why_no_comparison(is_member):
        raise ValueError(reason)
    return Labelled(values, is_member)


@dataclass(frozen=True, eq=False)
class _Curve:
    """Points of a ROC as some program has it, from strict to lax; `thresholds` of grids alone."""

    error: FloatArray
    found: FloatArray
    thresholds: FloatArray

    def nearest(self, rate: float) -> Point:
        return self._at(int(np.argmin(np.abs(self.error - rate))))  # the first of equals

    def last_below(self, rate: float) -> Point:
        return self._at(int(np.flatnonzero(self.error < rate)[-1]))

    def first_reaching(self, rate: float) -> Point:
        return self._at(int(np.flatnonzero(self.error >= rate)[0]))

    def area(self) -> float:
        """By trapezoids between the points there are; what lies beyond the ends is left out."""
        return float(np.trapezoid(self.found, self.error))

    def _at(self, i: int) -> Point:
        return Point(float(self.found[i]), float(self.error[i]))


def secmi(audit: Labelled, calibration: Labelled | None = None) -> ByRule:
    """2,000 equal steps from the lowest to the highest score instead of all thresholds; TPR at the step whose FPR is
    nearest, which may exceed it; ASR is the largest accuracy over the steps, on the audit set itself.
    """
    grid = _grid(audit, 2000, closed=True)
    return ByRule(grid.area(), _accuracies(audit, grid).max(), {rate: grid.nearest(rate) for rate in TAILS})


def pia(audit: Labelled, calibration: Labelled | None = None) -> ByRule:
    """TPR at the last point of the curve with FPR strictly below, so a point that meets the rate is passed over."""
    curve = _sklearn(audit.member, audit.scores)
    return ByRule(_exact_area(audit), None, {rate: curve.last_below(rate) for rate in TAILS})


def pfami(audit: Labelled, calibration: Labelled | None = None) -> ByRule:
    """Hold-outs are the positives, so its TPR is the share of hold-outs recognised where so many members are lost, at
    the point of a thinned curve that is nearest (it may be the origin); ASR is that share where both error rates are
    nearest to each other, no maximum.
    """
    curve = _sklearn(~audit.member, -audit.scores)
    equal = int(np.argmin(np.abs(curve.error + curve.found - 1)))
    return ByRule(_exact_area(audit), float(curve.found[equal]), {rate: curve.nearest(rate) for rate in TAILS})


def clid(audit: Labelled, calibration: Labelled | None = None) -> ByRule:
    """Hold-outs are the positives: its TPR is the share of hold-outs recognised where members are lost, at the first
    point that reaches the rate, so it exceeds it; ASR is the accuracy at the calibration (shadow) set's threshold.
    """
    curve = _sklearn(~audit.member, -audit.scores)
    asr = None
    if calibration is not None:
        grid = _grid(calibration, 2000, closed=False)
        best = grid.thresholds[int(np.argmax(_accuracies(calibration, grid)))]
        asr = float(((audit.scores >= best) == audit.member).mean())
    return ByRule(_exact_area(audit), asr, {rate: curve.first_reaching(rate) for rate in TAILS})


def copymark(audit: Labelled, calibration: Labelled | None = None) -> ByRule:
    """10,000 equal steps from the lowest score to below the highest instead of all thresholds: the largest TPR with FPR
    within the rate among these, and an area without the curve's ends; the threshold of another set is carried over.
    """
    grid = _grid(audit, 10_000, closed=False)
    carried = {rate: copymark_carried(calibration, audit, rate) for rate in TAILS} if calibration else {}
    return ByRule(grid.area(), None, {rate: grid._at(_best_within(grid, rate)) for rate in TAILS}, carried)


def cdi(audit: Labelled, calibration: Labelled | None = None) -> ByRule:
    """TPR at the first point of the curve whose FPR reaches the rate, so it exceeds it; no ASR."""
    curve = _sklearn(audit.member, audit.scores)
    return ByRule(_exact_area(audit), None, {rate: curve.first_reaching(rate) for rate in TAILS})


def copymark_carried(chosen_on: Labelled, applied_to: Labelled, max_fpr: float) -> Rates:
    """Rates at the step of another set's grid that `copymark` takes there: of equal TPRs the strictest."""
    grid = _grid(chosen_on, 10_000, closed=False)
    return rates_at(applied_to.scores, applied_to.member, float(grid.thresholds[_best_within(grid, max_fpr)]))


RULES: dict[str, Callable[[Labelled, Labelled | None], ByRule]] = {
    "SecMI": secmi,
    "PIA": pia,
    "PFAMI": pfami,
    "CLiD": clid,
    "CopyMark": copymark,
    "CDI": cdi,
}
"""Whose program -> its rule; the docstring says what differs."""


def by_rule(
    scores: ArrayLike, member: ArrayLike, calibration: tuple[ArrayLike, ArrayLike] | None = None
) -> dict[str, ByRule]:
    """Scores by every published rule.

    Args:
        scores: (N,), higher = member, finite: grids between infinite ends do not exist.
        member: (N,), bool.
        calibration: Scores and labels of the other set, for rules that carry a threshold over.

    Raises:
        ValueError: The input is not valid, infinite, or a class is missing.
    """
    audit, other = labelled(scores, member), labelled(*calibration) if calibration else None
    for one in (audit, other):
        if one is not None and not np.isfinite(one.scores).all():
            raise ValueError("a score is infinite: published programs step between the lowest and the highest")
    return {name: rule(audit, other) for name, rule in RULES.items()}


def _grid(of: Labelled, steps: int, closed: bool) -> _Curve:
    """The curve at equal steps of the threshold; `closed` with the last one, at the lowest of our scores."""
    low, high = -of.scores.max(), -of.scores.min()  # lower = member, as those programs have it
    thresholds = low + (high - low) / steps * np.arange(steps + closed)
    if closed:
        thresholds[-1] = high  # which rounding may miss
    share = partial(np.searchsorted, v=thresholds, side="right")
    found, error = (share(np.sort(-of.scores[kind])) / kind.sum() for kind in (of.member, ~of.member))
    return _Curve(error, found, -thresholds)


def _best_within(grid: _Curve, max_fpr: float) -> int:
    """The first step of largest TPR among those with FPR of at most `max_fpr`; the first step if there is none."""
    within = grid.error <= max_fpr
    return int(np.argmax(np.where(within, grid.found, -1.0)))


def _accuracies(of: Labelled, grid: _Curve) -> FloatArray:
    """Share of all samples called right at each step: not balanced, as the sets of papers are of equal size."""
    n_pos = int(of.member.sum())
    n_neg = of.member.size - n_pos
    shares: FloatArray = (grid.found * n_pos + (1 - grid.error) * n_neg) / of.member.size
    return shares


def _sklearn(positive: BoolArray, scores: FloatArray) -> _Curve:
    """scikit-learn's curve, which drops points on straight lines, as those programs draw it."""
    from sklearn.metrics import roc_curve

    return _Curve(*roc_curve(positive, scores))


def _exact_area(of: Labelled) -> float:
    return roc_auc(exact_roc(of.scores, of.member))
