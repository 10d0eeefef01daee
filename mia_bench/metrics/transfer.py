"""What a threshold that was chosen on one set gives on another: the rates an attacker would really have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from numpy.typing import ArrayLike

from mia_bench.metrics import roc as exact
from mia_bench.metrics.inputs import checked, why_no_comparison
from mia_bench.metrics.intervals import clopper_pearson
from mia_bench.metrics.models import Metric, Status, Transferred
from mia_bench.metrics.roc import Rates
from mia_bench.metrics.summary import tail_status

RATES = (0.01, 0.001)
"""False-positive rates that thresholds are chosen for."""

DOUBT = 0.05
"""Chance to call a threshold that holds one that does not, shared between both sides."""


def transferred(
    scores: ArrayLike,
    member: ArrayLike,
    calibration: tuple[ArrayLike, ArrayLike] | None,
    *,
    reason: str | None = None,
    classes: tuple[str, str] = ("members", "non-members"),
    rates: Sequence[float] = RATES,
    level: float = 0.95,
) -> tuple[Transferred, ...]:
    """Rates on one set at the thresholds of another, one record for each false-positive rate.

    The threshold is that of the largest TPR within the rate on the calibration set (`tpr_at_fpr`), moved half way to
    the next score below. Intervals are Clopper-Pearson of the evaluated set and take the threshold for fixed.

    Args:
        scores: (N,), of the evaluated set, higher = member.
        member: bool (N,).
        calibration: Scores (M,) and labels bool (M,) of the calibration set; None where there is none.
        reason: Why there is none.
        classes: What to call members and non-members of the evaluated set.
        rates: False-positive rates wanted on the calibration set.
        level: Nominal coverage of the intervals.

    Raises:
        ValueError: on NaN scores, labels that are not bool, or shapes that differ.
    """
    values, is_member = checked(scores, member)
    why = why_no_comparison(is_member, classes)
    if not why and calibration is None:
        why = reason or "no calibration set to choose a threshold on"
    if not why and calibration is not None:
        labels = checked(*calibration)[1]
        lacking = [kind for kind, there in (("members", labels.any()), ("non-members", (~labels).any())) if not there]
        why = f"the calibration set holds no {' and no '.join(lacking)}" if lacking else None
    if why or calibration is None:
        return tuple(_undefined(rate, why, level) for rate in rates)
    curve = exact.exact_roc(*calibration)
    found = []
    for rate in rates:
        standing = tail_status(rate, curve.n_neg, "calibration non-members")
        if standing[0] == "undefined":
            found.append(_undefined(rate, standing[2], level, curve.n_neg))
            continue
        point = exact.tpr_at_fpr(curve, rate)
        threshold = exact.carried(curve, point.threshold)
        at = exact.rates_at(values, is_member, threshold)
        found.append(
            Transferred(
                max_fpr=rate,
                n_calibration=curve.n_neg,
                chosen_fpr=point.realised,
                tpr=_share(at.tp, at.n_pos, at, threshold, standing, level),
                fpr=_share(at.fp, at.n_neg, at, threshold, standing, level),
                holds=holds(at.fp, at.n_neg, point.count, curve.n_neg),
            )
        )
    return tuple(found)


def holds(fp: int, n: int, chosen: int, n_calibration: int) -> Literal["yes", "too high", "too low"]:
    """Whether false positives are as many as the threshold's choice foretells, were both sets' non-members alike.

    A threshold between the k-th and the (k + 1)-th highest of n calibration non-members is passed by another one with a
    chance between Beta(k, n + 1 - k) and Beta(k + 1, n - k); so counts beyond the beta-binomial tails of these speak
    against it. With few calibration non-members the tails are long: an unsteady threshold is not a shift.

    Args:
        fp: Non-members of the evaluated set above the threshold.
        n: How many there are.
        chosen: Calibration non-members above it.
        n_calibration: How many there are.
    """
    from scipy.stats import betabinom

    if chosen < n_calibration and betabinom.sf(fp - 1, n, chosen + 1, n_calibration - chosen) < DOUBT / 2:
        return "too high"
    if chosen and betabinom.cdf(fp, n, chosen, n_calibration + 1 - chosen) < DOUBT / 2:
        return "too low"
    return "yes"


def _share(
    count: int, total: int, at: Rates, threshold: float, standing: tuple[Status, bool, str | None], level: float
) -> Metric:
    low, high = clopper_pearson(count, total, level)
    status, rankable, reason = standing
    return Metric(
        value=count / total,
        low=low,
        high=high,
        level=level,
        status=status,
        reason=reason,
        method="clopper-pearson",
        rankable=rankable,
        realised=at.fpr,
        count=at.fp,
        threshold=threshold,
    )


def _undefined(rate: float, reason: str | None, level: float, n_calibration: int = 0) -> Transferred:
    nothing = Metric(value=None, low=None, high=None, level=level, status="undefined", reason=reason)
    return Transferred(max_fpr=rate, n_calibration=n_calibration, tpr=nothing, fpr=nothing)
