"""One attack's scores turned into one record, with the standing that the sample sizes allow."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike

from mia_bench.metrics import bootstrap
from mia_bench.metrics import roc as exact
from mia_bench.metrics.delong import auc_interval
from mia_bench.metrics.inputs import checked, why_no_comparison
from mia_bench.metrics.intervals import Estimate
from mia_bench.metrics.models import Evaluation, Metric, RocPoints, Status
from mia_bench.metrics.roc import OperatingPoint

MIN_ERRORS_TO_REPORT = 10
"""Allowed errors below which a rate at a fixed error rate is flagged: its threshold is good to 1/sqrt(10)."""

MIN_ERRORS_TO_RANK = 100
"""Allowed errors from which rows may be ordered by it."""


def evaluate(
    scores: ArrayLike,
    member: ArrayLike,
    *,
    calibration_threshold: float | None = None,
    calibration_reason: str | None = None,
    classes: tuple[str, str] = ("members", "non-members"),
    seed: int = 0,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Evaluation:
    """All metrics of one attack.

    Args:
        scores: (N,), higher = member; +inf and -inf are allowed.
        member: (N,), bool.
        calibration_threshold: from `best_threshold` on a calibration set; None when there is none.
        calibration_reason: why there is none.
        classes: what to call members and non-members, where other samples are compared.
        seed: of the bootstrap.
        n_resamples: of the bootstrap.
        level: nominal coverage of all intervals.

    Returns:
        The record. With a class missing every metric is undefined and says why.

    Raises:
        ValueError: on NaN scores, labels that are not bool, or shapes that differ.
    """
    values, is_member = checked(scores, member)
    n_members = int(is_member.sum())
    n_nonmembers = values.size - n_members
    head: dict[str, Any] = {
        "n_members": n_members,
        "n_nonmembers": n_nonmembers,
        "bootstrap_seed": seed,
        "bootstrap_resamples": n_resamples,
    }
    reason = why_no_comparison(is_member, classes)
    if reason:
        names = ("auc", "tpr_at_1", "tpr_at_01", "tnr_at_1", "tnr_at_01", "asr_oracle", "asr_calibrated")
        nothing: dict[str, Any] = dict.fromkeys(names, _undefined(reason, level))
        return Evaluation(**head, **nothing)
    curve = exact.exact_roc(values, is_member)
    resamples = bootstrap.resample(curve, seed=seed, n_resamples=n_resamples)
    oracle = bootstrap.asr_oracle_interval(curve, resamples, level)
    if calibration_threshold is None:
        calibrated = _undefined(calibration_reason or "no calibration set to choose a threshold on", level)
    else:
        at = exact.rates_at(values, is_member, calibration_threshold)
        transferred = bootstrap.asr_at_interval(
            values, is_member, calibration_threshold, seed=seed, n_resamples=n_resamples, level=level
        )
        point = OperatingPoint(at.balanced_accuracy, at.fpr, at.fp, calibration_threshold, at.tp)
        calibrated = _metric(transferred, point)

    def tpr_metric(max_fpr: float) -> Metric:
        estimate = bootstrap.tpr_interval(curve, resamples, max_fpr, level)
        return _tail(max_fpr, n_nonmembers, classes[1], estimate, exact.tpr_at_fpr(curve, max_fpr))

    def tnr_metric(max_fnr: float) -> Metric:
        estimate = bootstrap.tnr_interval(curve, resamples, max_fnr, level)
        return _tail(max_fnr, n_members, classes[0], estimate, exact.tnr_at_fnr(curve, max_fnr))

    fpr, tpr = exact.log_points(curve)
    return Evaluation(
        **head,
        auc=_metric(auc_interval(values, is_member, level)),
        tpr_at_1=tpr_metric(0.01),
        tpr_at_01=tpr_metric(0.001),
        tnr_at_1=tnr_metric(0.01),
        tnr_at_01=tnr_metric(0.001),
        asr_oracle=_metric(oracle, exact.asr_oracle(curve)),
        asr_calibrated=calibrated,
        roc=RocPoints(fpr=tuple(fpr), tpr=tuple(tpr)),
    )


def tail_status(max_rate: float, n: int, kind: str = "non-members") -> tuple[Status, bool, str | None]:
    """Standing of a rate at a fixed error rate: an error rate is resolved no finer than 1 / n.

    Args:
        max_rate: the allowed error rate, for example 0.01.
        n: samples of the class in which the errors are counted.
        kind: what to call them.

    Returns:
        Status, whether rows may be ranked by it, and the reason if the status is not `ok`.
    """
    allowed = exact.allowed_count(max_rate, n)
    found = f"{100 * max_rate:.4g} % of {n} {kind} is {max_rate * n:.3g} errors"
    if allowed < 1:
        return "undefined", False, f"{found}: fewer than 1, so no threshold has that error rate"
    if allowed < MIN_ERRORS_TO_REPORT:
        return "flagged", False, f"{found}: fewer than {MIN_ERRORS_TO_REPORT}, so the threshold is unsteady"
    return "ok", allowed >= MIN_ERRORS_TO_RANK, None


def _tail(max_rate: float, n: int, kind: str, estimate: Estimate, point: OperatingPoint) -> Metric:
    """A rate at a fixed error rate, unless `n` samples of the erring class are too few to speak of one."""
    status, rankable, reason = tail_status(max_rate, n, kind)
    if status == "undefined":
        return _undefined(reason, estimate.level)
    return _metric(estimate, point, status, rankable, reason)


def _metric(
    estimate: Estimate,
    point: OperatingPoint | None = None,
    status: Status = "ok",
    rankable: bool = True,
    reason: str | None = None,
) -> Metric:
    return Metric(
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        level=estimate.level,
        status=status,
        reason=reason,
        method=estimate.method,
        rankable=rankable,
        realised=point.realised if point else None,
        count=point.count if point else None,
        threshold=point.threshold if point else None,
    )


def _undefined(reason: str | None, level: float) -> Metric:
    return Metric(value=None, low=None, high=None, level=level, status="undefined", reason=reason)
