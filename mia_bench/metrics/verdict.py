"""Verdicts: does an attack's metric show more than chance, and more than classifiers that never ask the target?

Every comparison is paired, on the very same samples. An attack has to do better than each of several baselines, so its
p-value is the largest over them (intersection-union test; Berger 1982, Technometrics 24:295), then adjusted over the
attacks of a table (Holm). Chance is one of the baselines: classifiers fitted out of fold often fall below it.

`asr_oracle` gets no verdict: a maximum over thresholds of the audit set itself lies above 0.5 for a score that knows
nothing, and the more so the fewer the samples. AUC and `asr_calibrated` ask the same without that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from mia_bench.metrics import roc as exact
from mia_bench.metrics.delong import MIN_PER_CLASS, PairedDifference, auc_interval, paired_delong
from mia_bench.metrics.holm import holm
from mia_bench.metrics.inputs import BoolArray, checked
from mia_bench.metrics.intervals import Estimate, normal_quantile
from mia_bench.metrics.models import Gap, Metric, Verdict, Word

ALPHA = 0.05
RATES = {"tpr_at_1": 0.01, "tpr_at_01": 0.001}
JUDGED = ("auc", *RATES, "asr_calibrated")
"""Metrics that get a verdict."""

CHANCE = "chance"
"""The baseline that knows nothing."""

FOLDS = 5


@dataclass(frozen=True)
class Case:
    """One metric of one attack, and what it is held against.

    Attributes:
        metric: As reported.
        chance: What a score that knows nothing gives; see `chance_of`.
        n_smaller: Samples of the smaller class.
        against: Baseline -> attack minus baseline, `CHANCE` among them.
        missing: Why a baseline that should be there is not; empty if all are.
    """

    metric: Metric
    chance: float
    n_smaller: int
    against: Mapping[str, PairedDifference] = field(default_factory=dict)
    missing: str = ""


def chance_of(name: str, n_nonmembers: int) -> float:
    """What a score that knows nothing gives on average.

    A TPR at a rate that allows k of n non-members is the share of members above the (k + 1)-th highest of them, which
    is (k + 1) / (n + 1): a little more than the rate.
    """
    if name not in RATES:
        return 0.5
    return (exact.allowed_count(RATES[name], n_nonmembers) + 1) / (n_nonmembers + 1)


def verdicts(cases: Mapping[str, Case]) -> dict[str, Verdict]:
    """One verdict for each attack of a table, on one metric.

    `too few samples`: the metric is undefined or flagged, or a class has fewer than `MIN_PER_CLASS` samples; `at
    chance`: its interval holds what chance gives; `clears blind`: it is above every baseline, adjusted p < `ALPHA`;
    `no blind baseline`: there is none, or one that could change this could not be run; `does not clear blind`: all
    others.

    Args:
        cases: By attack; p-values are adjusted over all that could be compared, whatever their verdict.
    """
    largest = {label: _largest(case) for label, case in cases.items()}
    tested = {label: p for label, p in largest.items() if p is not None}
    adjusted = dict(zip(tested, holm([*tested.values()]), strict=True))
    return {label: _verdict(case, largest[label], adjusted.get(label)) for label, case in cases.items()}


def auc_difference(a: ArrayLike, b: ArrayLike, member: ArrayLike, level: float = 0.95) -> PairedDifference:
    """As `paired_delong`, with a fallback where its variance cannot be trusted or is zero.

    That is where an AUC is near 0 or 1, or a class is small: see `auc_interval`. There the difference is also that of
    two intervals (`unpaired`), and the larger p-value counts. A score that says the same of all samples is chance
    itself and has no spread.
    """
    found = paired_delong(a, b, member, level)
    if found.difference.reason and found.p_value is None and min(_counts(member)) < 2:
        return found
    both = [_auc(values, member, level) for values in (a, b)]
    if found.p_value is not None and all(one.method in ("delong-logit", "known") for one in both):
        return found
    wide = unpaired(*both)
    if found.p_value is None or wide.p_value is None or wide.p_value >= found.p_value:
        return wide
    return found


def unpaired(a: Estimate | Metric, b: Estimate | Metric) -> PairedDifference:
    """Difference of two numbers of which only the intervals are known, as if they came of other samples.

    Interval by the square-and-add rule (Zou and Donner 2008, Stat Med 27:1693); its width towards 0 gives the p-value.
    Numbers that rise and fall together on the same samples, as those of two attacks mostly do, differ more surely than
    this says.
    """
    level = a.level
    gap = _gap((a.value, a.low, a.high), (b.value, b.low, b.high))
    if gap is None:
        return PairedDifference(Estimate.undefined(a.reason or b.reason or "no number", level), None)
    difference, down, up = gap
    spread = (down if difference > 0 else up) / normal_quantile(level)
    p_value = math.erfc(abs(difference) / spread / math.sqrt(2)) if spread > 0 else float(difference == 0)
    low, high = max(-1.0, difference - down), min(1.0, difference + up)
    return PairedDifference(Estimate(difference, low, high, level, "two-intervals"), p_value)


def decisions(scores: ArrayLike, member: ArrayLike) -> BoolArray:
    """Who is called a member, by thresholds chosen for the best balanced accuracy on other folds of the same samples.

    The AUC of such decisions is their balanced accuracy: so a baseline that has no calibration set is compared with
    `asr_calibrated`, without the excess of a threshold chosen on the samples that it decides.

    Args:
        scores: (N,), higher = member; at least two samples of each class.
        member: (N,), bool.

    Returns:
        bool (N,).
    """
    values, is_member = checked(scores, member)
    fold = np.empty(values.size, dtype=np.int64)
    for side in (is_member, ~is_member):
        fold[side] = np.arange(side.sum()) % min(FOLDS, *_counts(is_member))
    called = np.empty(values.size, dtype=bool)
    for one in np.unique(fold):
        here = fold == one
        called[here] = values[here] >= exact.best_threshold(values[~here], is_member[~here])
    return called


def gap_of(against: str, found: PairedDifference, adjusted: float | None = None) -> Gap:
    """A difference as a record."""
    d = found.difference
    return Gap(
        against=against,
        value=d.value,
        low=d.low,
        high=d.high,
        p_value=found.p_value,
        adjusted=adjusted,
        method=d.method or None,
        reason=d.reason,
    )


def _largest(case: Case) -> float | None:
    """p-value of doing no better than some baseline; None where nothing could be compared."""
    known = [towards(one) for one in case.against.values() if one.p_value is not None]
    return max(known) if known and case.metric.value is not None else None


def towards(one: PairedDifference) -> float:
    """Two-sided p-value where the attack is above, 1 elsewhere."""
    assert one.p_value is not None
    return one.p_value if (one.difference.value or 0.0) > 0 else 1.0


def _verdict(case: Case, p_value: float | None, adjusted: float | None) -> Verdict:
    metric = case.metric
    blind = {name: one for name, one in case.against.items() if name != CHANCE and one.difference.value is not None}
    best = min(blind, key=lambda name: blind[name].difference.value or 0.0, default=None)
    common = {
        "chance": case.chance,
        "blind": gap_of(best, blind[best]) if best else None,
        "p_value": p_value,
        "adjusted": adjusted,
    }
    if metric.value is None or metric.low is None or metric.high is None or metric.status != "ok":
        return Verdict(verdict="too few samples", reason=metric.reason, **{**common, "p_value": None, "adjusted": None})
    if case.n_smaller < MIN_PER_CLASS:
        why = f"{case.n_smaller} samples of the smaller class, {MIN_PER_CLASS} needed"
        return Verdict(verdict="too few samples", reason=why, **common)
    if metric.low <= case.chance <= metric.high:
        return Verdict(verdict="at chance", **common)
    if metric.value < case.chance:
        word: Word = "does not clear blind" if blind else "no blind baseline"
        return Verdict(verdict=word, reason="below chance: members score lower", **common)
    unknown = [one.difference.reason or "" for one in case.against.values() if one.p_value is None]
    missing = case.missing or next(iter(unknown), "") or ("" if blind else "no blind baseline was run")
    if adjusted is not None and adjusted >= ALPHA and blind:
        return Verdict(verdict="does not clear blind", **common)
    if missing or adjusted is None:
        return Verdict(verdict="no blind baseline", reason=missing, **common)
    return Verdict(verdict="clears blind", **common)


def _auc(values: ArrayLike, member: ArrayLike, level: float) -> Estimate:
    array = np.asarray(values, dtype=np.float64)
    if (array == array[0]).all():
        return Estimate(0.5, 0.5, 0.5, level, "known")
    return auc_interval(array, member, level)


def _counts(member: ArrayLike) -> tuple[int, int]:
    is_member = np.asarray(member, dtype=bool)
    return int(is_member.sum()), int((~is_member).sum())


def _gap(
    a: tuple[float | None, float | None, float | None], b: tuple[float | None, float | None, float | None]
) -> tuple[float, float, float] | None:
    """A - b, and how far its interval reaches down and up."""
    (x, x_low, x_high), (y, y_low, y_high) = a, b
    if x is None or x_low is None or x_high is None or y is None or y_low is None or y_high is None:
        return None
    return x - y, math.hypot(x - x_low, y_high - y), math.hypot(x_high - x, y - y_low)
