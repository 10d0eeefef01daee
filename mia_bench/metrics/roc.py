"""Exact ROC curves and the numbers read off them.

Scores are float64 of shape (N,), **higher = member**; `member` is bool of shape (N,). A threshold t calls a
sample a member when its score >= t. Nothing is interpolated: every rate belongs to a threshold that exists.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mia_bench.metrics.inputs import FloatArray, IntArray, checked, why_no_comparison


@dataclass(frozen=True, eq=False)
class Roc:
    """Every operating point of a score; tied scores make one point.

    Attributes:
        thresholds: float64 (P,), falling. The first point calls nothing a member and is written +inf, even
            where a score is +inf itself; the others are the distinct scores.
        fp: int64 (P,), non-members called members, rising from 0 to `n_neg`.
        tp: int64 (P,), members called members, rising from 0 to `n_pos`.
        n_neg: non-members, at least 1.
        n_pos: members, at least 1.
    """

    thresholds: FloatArray
    fp: IntArray
    tp: IntArray
    n_neg: int
    n_pos: int

    @property
    def fpr(self) -> FloatArray:
        """False positive rates, float64 (P,)."""
        return self.fp / self.n_neg

    @property
    def tpr(self) -> FloatArray:
        """True positive rates, float64 (P,)."""
        return self.tp / self.n_pos


@dataclass(frozen=True)
class OperatingPoint:
    """The best point of one tail.

    Attributes:
        value: the rate asked for (TPR or TNR), 0 to 1.
        realised: the error rate that the threshold really has (FPR or FNR); at most the one asked for.
        count: that error rate as a number of samples.
        threshold: scores >= it are called members; may be +inf (nothing is).
        hits: samples behind `value`.
    """

    value: float
    realised: float
    count: int
    threshold: float
    hits: int


@dataclass(frozen=True)
class Rates:
    """Counts at one fixed threshold: `tp` of `n_pos` members and `fp` of `n_neg` non-members pass it."""

    tp: int
    fp: int
    n_pos: int
    n_neg: int

    @property
    def tpr(self) -> float:
        """Share of members called members."""
        return self.tp / self.n_pos

    @property
    def fpr(self) -> float:
        """Share of non-members called members."""
        return self.fp / self.n_neg

    @property
    def balanced_accuracy(self) -> float:
        """(TPR + TNR) / 2."""
        return (self.tpr + (self.n_neg - self.fp) / self.n_neg) / 2


def exact_roc(scores: ArrayLike, member: ArrayLike) -> Roc:
    """The exact ROC curve.

    Args:
        scores: (N,), higher = member.
        member: (N,), bool.

    Raises:
        ValueError: if the input is not valid (see `checked`) or a class is missing.
    """
    values, is_member = checked(scores, member)
    reason = why_no_comparison(is_member)
    if reason:
        raise ValueError(reason)
    distinct, group = np.unique(values, return_inverse=True)
    pos = np.bincount(group[is_member], minlength=distinct.size)[::-1]
    neg = np.bincount(group[~is_member], minlength=distinct.size)[::-1]
    return Roc(
        thresholds=np.concatenate([[np.inf], distinct[::-1]]),
        fp=np.concatenate([[0], np.cumsum(neg)]).astype(np.int64),
        tp=np.concatenate([[0], np.cumsum(pos)]).astype(np.int64),
        n_neg=int(neg.sum()),
        n_pos=int(pos.sum()),
    )


def roc_auc(roc: Roc) -> float:
    """Area under the curve, summed in integers: exact but for the last division."""
    doubled = int(np.sum(np.diff(roc.fp) * (roc.tp[1:] + roc.tp[:-1])))
    return doubled / (2 * roc.n_neg * roc.n_pos)


def auc(scores: ArrayLike, member: ArrayLike) -> float:
    """Chance that a member scores above a non-member, ties counting one half (Mann-Whitney).

    Raises:
        ValueError: if the input is not valid or a class is missing.
    """
    return roc_auc(exact_roc(scores, member))


def allowed_count(max_rate: float, total: int) -> int:
    """Errors that a rate allows: floor(max_rate * total), safe against 0.29 * 100 = 28.999999999999996."""
    if not 0 <= max_rate <= 1:
        raise ValueError(f"the allowed error rate must lie between 0 and 1, not {max_rate}")
    return math.floor(max_rate * total + 1e-9)


def tpr_at_fpr(roc: Roc, max_fpr: float) -> OperatingPoint:
    """Largest TPR among the thresholds whose realised FPR is at most `max_fpr`; no interpolation.

    Among thresholds of equal TPR the highest is taken: it has the fewest false positives.
    """
    within = int(np.searchsorted(roc.fp, allowed_count(max_fpr, roc.n_neg), side="right")) - 1
    best = int(np.searchsorted(roc.tp, roc.tp[within], side="left"))
    tp, fp = int(roc.tp[best]), int(roc.fp[best])
    return OperatingPoint(tp / roc.n_pos, fp / roc.n_neg, fp, float(roc.thresholds[best]), tp)


def tnr_at_fnr(roc: Roc, max_fnr: float) -> OperatingPoint:
    """The other tail: largest TNR among the thresholds that lose at most `max_fnr` of the members.

    Equals `tpr_at_fpr` with scores negated and labels swapped. Among thresholds of equal TNR the lowest is
    taken: it loses the fewest members.
    """
    needed = roc.n_pos - allowed_count(max_fnr, roc.n_pos)
    within = int(np.searchsorted(roc.tp, needed, side="left"))
    best = int(np.searchsorted(roc.fp, roc.fp[within], side="right")) - 1
    fn, tn = roc.n_pos - int(roc.tp[best]), roc.n_neg - int(roc.fp[best])
    return OperatingPoint(tn / roc.n_neg, fn / roc.n_pos, fn, float(roc.thresholds[best]), tn)


def asr_oracle(roc: Roc) -> OperatingPoint:
    """Largest (TPR + TNR) / 2 over all thresholds of the evaluated set itself; optimistic, so label it.

    `realised` and `count` are the false positives there, `hits` the true positives. Of equals the highest
    threshold is taken.
    """
    best = _most_balanced(roc)
    rates = Rates(int(roc.tp[best]), int(roc.fp[best]), roc.n_pos, roc.n_neg)
    return OperatingPoint(rates.balanced_accuracy, rates.fpr, rates.fp, float(roc.thresholds[best]), rates.tp)


def rates_at(scores: ArrayLike, member: ArrayLike, threshold: float) -> Rates:
    """Counts of samples with score >= `threshold`, a threshold chosen elsewhere.

    Raises:
        ValueError: if the input is not valid, a class is missing or the threshold is NaN.
    """
    values, is_member = checked(scores, member)
    reason = why_no_comparison(is_member)
    if reason:
        raise ValueError(reason)
    if math.isnan(threshold):
        raise ValueError("the threshold is NaN")
    called = values >= threshold
    n_pos = int(is_member.sum())
    return Rates(int((called & is_member).sum()), int((called & ~is_member).sum()), n_pos, values.size - n_pos)


def asr_at(scores: ArrayLike, member: ArrayLike, threshold: float) -> float:
    """Balanced accuracy (TPR + TNR) / 2 when score >= `threshold` is called a member."""
    return rates_at(scores, member, threshold).balanced_accuracy


def best_threshold(scores: ArrayLike, member: ArrayLike) -> float:
    """The threshold to carry over from a calibration set: where its balanced accuracy is largest.

    Any value between two neighbouring scores separates the calibration set equally well; the midpoint is
    returned, because a threshold on a score itself leans towards the set it was chosen on. Of equals the
    highest is taken; +inf (call nothing a member) when no threshold does better than chance.

    Raises:
        ValueError: if the input is not valid or a class is missing.
    """
    roc = exact_roc(scores, member)
    return carried(roc, float(roc.thresholds[_most_balanced(roc)]))


def carried(roc: Roc, threshold: float) -> float:
    """A threshold of a curve as it is carried over to other samples: half way to the next score below.

    +inf, which calls nothing a member, stays; so does the lowest score.
    """
    at = int(np.flatnonzero(roc.thresholds == threshold)[0])
    if at == 0 or at + 1 == roc.thresholds.size:
        return threshold
    below = float(roc.thresholds[at + 1])
    middle = below / 2 + threshold / 2  # each halved first: the sum of two large floats overflows
    return middle if below < middle <= threshold and math.isfinite(middle) else threshold


def log_points(roc: Roc, max_points: int = 1000) -> tuple[list[float], list[float]]:
    """The curve for a log-log plot, from FPR 1 / n_neg (the least that can be resolved) to 1.

    Only corners are kept: FPRs at which the TPR rises, to be drawn as steps that hold until the next point
    (`steps-post`). A curve with more corners than `max_points` is thinned at even steps of log FPR; the
    points that remain are exact.

    Returns:
        FPR and TPR, two lists of one length.
    """
    fp = np.unique(np.maximum(roc.fp, 1))
    tp = roc.tp[np.searchsorted(roc.fp, fp, side="right") - 1]  # the largest TPR within each FPR
    corner = np.diff(tp, prepend=-1) > 0
    corner[-1] = True  # the curve ends at FPR 1
    fp, tp = fp[corner], tp[corner]
    if fp.size > max_points:
        wanted = np.geomspace(1, roc.n_neg, max_points)
        kept = np.union1d(np.searchsorted(fp, wanted, side="right") - 1, [fp.size - 1])
        fp, tp = fp[kept], tp[kept]
    return (fp / roc.n_neg).tolist(), (tp / roc.n_pos).tolist()


def _most_balanced(roc: Roc) -> int:
    """Index of the largest TPR - FPR, compared in integers so that equals are equal; the first of them."""
    return int(np.argmax(roc.tp * roc.n_neg - roc.fp * roc.n_pos))
