"""What changed between two runs: whether scores are the same, and whether a metric moved by more than chance.

Scores are float64 (N,), higher = member, of the same samples in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mia_bench.metrics.delong import MIN_MISRANKED, MIN_PER_CLASS, auc_interval, placements
from mia_bench.metrics.holm import holm
from mia_bench.metrics.inputs import BoolArray, FloatArray, checked, why_no_comparison
from mia_bench.metrics.intervals import normal_quantile
from mia_bench.metrics.roc import allowed_count
from mia_bench.metrics.summary import tail_status

Direction = Literal["rise", "drop", "both"]
Ranks = NDArray[np.int32]
RELATIVE = 1e-5
"""Part of a score that it may differ by on other hardware or at another row count, beside its share of the spread."""

RELATIVE_AT_MOST = 0.05
"""Part of the spread that this may come to, or it would hide scores drawn anew where they lie far from 0. It cuts in
at 5000 times the spread; recorded scores lie within 30, and even there float32 rounds (1e-7) by far less."""

TAILS = {"tpr_at_1": 0.01, "tpr_at_01": 0.001, "tnr_at_1": 0.01, "tnr_at_01": 0.001}
METRICS = ("auc", *TAILS)
"""What can be gated."""

POWER = 0.8
CAUTION = 1.28  # standard errors of a standard error
STEPS = 1000  # from no change to the largest possible, when the detectable one is sought
CELLS_PER_CHUNK = 10_000_000  # held at once, a byte each


def departures(before: ArrayLike, after: ArrayLike, tolerance: float) -> FloatArray:
    """How far each score has moved, in units of what it may move by; above 1 is another score.

    It may move by `tolerance` of the spread of all earlier scores (interquartile range; their mean distance from the
    median where half of them are equal), and by `RELATIVE` of itself, but no more than `RELATIVE_AT_MOST` of the spread
    if there is any.

    Args:
        before: (N,).
        after: (N,), of the same samples.
        tolerance: Positive.

    Returns:
        float64 (N,); 0 for equal ones, +inf where one of the two is infinite or nothing may move.
    """
    old, new = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    finite = old[np.isfinite(old)]
    spread = 0.0
    if finite.size:
        low, middle, high = np.quantile(finite, [0.25, 0.5, 0.75])
        spread = float(high - low) or float(np.abs(finite - middle).mean())
    with np.errstate(invalid="ignore", divide="ignore"):
        own = np.minimum(RELATIVE * np.abs(old), RELATIVE_AT_MOST * spread if spread else np.inf)
        ratio = np.abs(new - old) / (tolerance * spread + own)
    ratio[~np.isfinite(old) | ~np.isfinite(new)] = np.inf
    ratio[old == new] = 0.0
    return ratio


def displacements(before: ArrayLike, after: ArrayLike, tolerance: float) -> FloatArray:
    """The same by ranks: each score may move past `tolerance` of the others.

    For classifiers, whose training makes rounding errors large and flips the leaves of trees.
    """
    from scipy.stats import rankdata

    old, new = (rankdata(values) for values in (before, after))
    ratio: FloatArray = np.abs(new - old) / (tolerance * max(1, old.size - 1))
    return ratio


@dataclass(frozen=True)
class Change:
    """A metric of one attack in two runs on the same samples.

    Attributes:
        metric: One of `METRICS`.
        before: In the earlier run, 0 to 1.
        after: In the later one.
        spread: Standard error of their difference over samples.
        df: Degrees of freedom of the test.
        pieces: From how many independent pieces the standard error was estimated, in effect.
        n_members: Samples behind it; the other count likewise.
        note: Why it is unsteady, or nothing.
    """

    metric: str
    before: float
    after: float
    spread: float
    df: float
    pieces: float
    n_members: int
    n_nonmembers: int
    note: str = ""

    @property
    def value(self) -> float:
        """After minus before."""
        return self.after - self.before

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Of the difference, within -1 to 1."""
        half = self._quantile((1 - level) / 2) * self.spread
        return max(-1.0, self.value - half), min(1.0, self.value + half)

    def p_value(self, direction: Direction, margin: float = 0.0) -> float:
        """Of a change in that direction by no more than `margin`, at most; `both`: of either sign."""
        gap = {"rise": self.value, "drop": -self.value, "both": abs(self.value)}[direction]
        if self.spread == 0:
            return float(gap <= margin)
        p_value = self._tail((gap - margin) / self.spread)
        if direction == "both":
            p_value += self._tail((gap + margin) / self.spread)
        return min(1.0, p_value)

    def detectable(self, direction: Direction, margin: float, level: float, power: float = POWER) -> float | None:
        """Smallest true change that a test at `level` finds with this power.

        None if not even the largest one is found, and where there is no spread to tell (the very same ranks).

        The standard error is carried over to the changed metric by the ratio of textbook variances (`_variance`): that
        of a TPR near 0 grows several times before a change can be told from none. Where they say that it shrinks, it
        stays: the two runs also vary less together the more they differ. And it is an estimate: its upper limit
        (one-sided, 90 %) is taken, else the size would be too small as often as not.
        """
        if self.spread == 0:
            return None
        if direction == "both":
            both: list[Direction] = ["rise", "drop"]
            found = [self.detectable(one, margin, level / 2, power) for one in both]
            return max((one for one in found if one is not None), default=None)
        room, sign = (1 - self.before, 1) if direction == "rise" else (self.before, -1)
        changes = room * np.arange(1, STEPS + 1) / STEPS
        variance = partial(_variance, self.metric, n_pos=self.n_members, n_neg=self.n_nonmembers)
        now, then = variance(np.array([self.before, self.after])), variance(self.before + sign * changes)
        grown = np.sqrt(np.maximum(1, (now[0] + then) / now.sum()))
        spread = self.spread * (1 + CAUTION / math.sqrt(2 * self.pieces)) * grown
        seen = changes - margin >= (self._quantile(level) + self._quantile(1 - power)) * spread
        return float(changes[seen.argmax()]) if seen.any() else None

    def _tail(self, x: float) -> float:
        from scipy.special import ndtr, stdtr

        return float(ndtr(-x) if math.isinf(self.df) else stdtr(self.df, -x))

    def _quantile(self, tail: float) -> float:
        from scipy.special import ndtri, stdtrit

        return float(-ndtri(tail) if math.isinf(self.df) else -stdtrit(self.df, tail))


@dataclass(frozen=True)
class Tested:
    """One test of a family.

    Attributes:
        change: What was tested.
        p_value: Of no change beyond the margin, not adjusted.
        adjusted: The same, adjusted for the whole family (Holm).
        found: Whether the metric moved.
        direction: In which that was asked.
        margin: Beyond which.
        level: Of the first step of Holm.
    """

    change: Change
    p_value: float
    adjusted: float
    found: bool
    direction: Direction
    margin: float
    level: float

    @property
    def detectable(self) -> float | None:
        """Smallest true change that would have been found at `level`; see `Change.detectable`."""
        return self.change.detectable(self.direction, self.margin, self.level)


def judged_together(
    changes: Sequence[Change], direction: Direction = "rise", margin: float = 0.0, alpha: float = 0.05
) -> list[Tested]:
    """Test all changes at once.

    Args:
        changes: Of all attacks and metrics that are gated together.
        direction: In which a change counts.
        margin: Up to which it does not.
        alpha: Chance that any of them is found though none is true, at most.
    """
    p_values = [one.p_value(direction, margin) for one in changes]
    return [
        Tested(one, p_value, adjusted, adjusted < alpha, direction, margin, alpha / len(changes))
        for one, p_value, adjusted in zip(changes, p_values, holm(p_values), strict=True)
    ]


def change(
    metric: str, before: ArrayLike, after: ArrayLike, member: ArrayLike, *, seed: int = 0, n_resamples: int = 1000
) -> Change | str:
    """How a metric moved from one run to the next.

    AUC: DeLong's paired variance, by the degrees of freedom of Welch (the placements are two independent samples).
    Rates at a fixed error rate: standard error of a paired bootstrap, stratified by class, the threshold chosen anew
    in each resample.

    Args:
        metric: One of `METRICS`.
        before: (N,) scores of the earlier run, higher = member.
        after: (N,) of the later run, same samples.
        member: (N,), bool.
        seed: Of the bootstrap.
        n_resamples: Of the bootstrap.

    Returns:
        The change, or why there are too few samples to speak of one.

    Raises:
        ValueError: An unknown metric, NaN scores, or shapes that differ.
    """
    if metric not in METRICS:
        raise ValueError(f"{metric!r} cannot be gated, only {', '.join(METRICS)}")
    old, is_member = checked(before, member)
    new, _ = checked(after, member)
    if reason := why_no_comparison(is_member):
        return reason
    order = np.lexsort((new, old))  # the same numbers in whatever order the samples came
    old, new, is_member = old[order], new[order], is_member[order]
    n_members = int(is_member.sum())
    counts = n_members, is_member.size - n_members
    for count, kind in zip(counts, ("members", "non-members"), strict=True):
        if count < MIN_PER_CLASS:
            return f"{count} {kind}: fewer than {MIN_PER_CLASS}, too few for a test"
    if metric == "auc":
        return _auc_change(old, new, is_member)
    erring, kind = (counts[1], "non-members") if metric.startswith("tpr") else (counts[0], "members")
    status, _, why = tail_status(TAILS[metric], erring, kind)
    if status == "undefined":
        return str(why)
    return _tail_change(metric, old, new, is_member, why or "", seed, n_resamples)


def _auc_change(before: FloatArray, after: FloatArray, member: BoolArray) -> Change:
    n_pos = int(member.sum())
    n_neg = member.size - n_pos
    (pos_a, neg_a), (pos_b, neg_b) = placements(after, member), placements(before, member)
    parts = [float(np.var(d, ddof=1)) / d.size for d in (pos_a - pos_b, neg_a - neg_b)]
    variance = sum(parts)
    terms = sum(part**2 / (n - 1) for part, n in zip(parts, (n_pos, n_neg), strict=True))
    df = variance**2 / terms if terms > 0 else math.inf
    a, b, spread, note = float(pos_b.mean()), float(pos_a.mean()), math.sqrt(variance), ""
    least = MIN_MISRANKED / min(n_pos, n_neg)
    if min(a, b, 1 - a, 1 - b) < least and not np.array_equal(*_ranks(before, after)):
        # Too few pairs are misranked for DeLong: the intervals of both, as if of other samples (Zou and Donner 2008).
        ends = [(e.value, e.low, e.high) for e in (auc_interval(one, member) for one in (before, after))]
        (a, a_low, a_high), (b, b_low, b_high) = (tuple(float(v) for v in one if v is not None) for one in ends)
        half = max(math.hypot(b - b_low, a_high - a), math.hypot(b_high - b, a - a_low))
        spread, note = max(spread, half / normal_quantile(0.95)), "hardly a pair is misranked: the spread is a bound"
    return Change("auc", a, b, spread, df, df, n_pos, n_neg, note)


def _ranks(before: FloatArray, after: FloatArray) -> Ranks:
    """Dense ranks in both runs, (2, N)."""
    return np.stack([np.unique(one, return_inverse=True)[1] for one in (before, after)]).astype(np.int32)


def _tail_change(
    metric: str, before: FloatArray, after: FloatArray, member: BoolArray, note: str, seed: int, n_resamples: int
) -> Change:
    n_pos = int(member.sum())
    counts = n_pos, member.size - n_pos
    values = np.stack([before, after])
    if metric.startswith("tnr"):  # the other tail is this one with the classes swapped
        values, member = -values, ~member
    ranks = _ranks(*values)
    found, erring = ranks[:, member], ranks[:, ~member]
    allowed = allowed_count(TAILS[metric], erring.shape[1])
    rates = _rates(found, erring, allowed)
    spread = 0.0
    if not np.array_equal(*ranks):
        spread = _bootstrapped(found, erring, allowed, seed, n_resamples)
        if not np.any((rates > 0) & (rates < 1)):  # which no resample may move: Agresti and Coull 1998
            drawn_in = (rates * found.shape[1] + 1) / (found.shape[1] + 2)
            spread = max(spread, math.sqrt(float((drawn_in * (1 - drawn_in)).sum()) / found.shape[1]))
    return Change(metric, float(rates[0]), float(rates[1]), spread, math.inf, allowed + 1, *counts, note)


def _bootstrapped(found: Ranks, erring: Ranks, allowed: int, seed: int, n_resamples: int) -> float:
    """Standard error of the difference of two rates under a bootstrap that draws a sample with both its ranks.

    The erring class is resampled, for each resample gives each run its threshold. What resampling the other class would
    add is known without drawing: beyond given thresholds, counts are multinomial.

    Args:
        found: Ranks in both runs, (2, n).
        erring: Those of the class whose errors are limited, (2, m).
        allowed: How many errors.
        seed: Of the generator.
        n_resamples: At least 2.
    """
    rng, (_, n), (_, m) = np.random.default_rng(seed), found.shape, erring.shape
    # A threshold is among so many highest, but for a chance below 1e-12: the others are drawn as one.
    reach = allowed + 21 + math.ceil(8 * math.sqrt(allowed + 1))
    top = erring[:, (np.argsort(np.argsort(-erring, axis=1), axis=1) < reach).any(axis=0)]
    weights = np.append(np.full(top.shape[1], 1 / m), max(0.0, 1 - top.shape[1] / m))
    counts = rng.multinomial(m, weights / weights.sum(), size=n_resamples)[:, :-1]
    thresholds = []
    for ranks in top:
        order = np.argsort(-ranks)
        place = (np.cumsum(counts[:, order], axis=1) <= allowed).sum(axis=1)
        thresholds.append(ranks[order][np.minimum(place, ranks.size - 1)])
    means, variances = np.empty(n_resamples), np.empty(n_resamples)
    rows = max(1, CELLS_PER_CHUNK // n)
    for start in range(0, n_resamples, rows):
        part = slice(start, start + rows)
        before, after = (ranks > at[part, None] for ranks, at in zip(found, thresholds, strict=True))
        means[part] = after.mean(axis=1) - before.mean(axis=1)
        variances[part] = ((before != after).mean(axis=1) - means[part] ** 2) / n
    return math.sqrt(float(variances.mean() + means.var(ddof=1)))


def _rates(found: Ranks, erring: Ranks, allowed: int) -> FloatArray:
    """Share of `found` (2, n) above all but `allowed` of `erring` (2, m): the largest rate with so few errors."""
    if allowed >= erring.shape[1]:
        return np.ones(2)
    place = erring.shape[1] - 1 - allowed
    rates: FloatArray = (found > np.partition(erring, place, axis=1)[:, place, None]).mean(axis=1)
    return rates


def _variance(metric: str, values: FloatArray, *, n_pos: int, n_neg: int) -> FloatArray:
    """Textbook variances of a metric at some values.

    AUC: Hanley and McNeil 1982. A rate at a fixed error rate: binomial, and the threshold's own, which goes by the
    slope of a binormal curve of equal variances through that point.
    """
    if metric == "auc":
        least = 0.5 / min(n_pos, n_neg)
        a = np.clip(values, least, 1 - least)
        extra = (n_pos - 1) * (a / (2 - a) - a * a) + (n_neg - 1) * (2 * a * a / (1 + a) - a * a)
        of_auc: FloatArray = (a * (1 - a) + extra) / (n_pos * n_neg)
        return of_auc
    from scipy.special import ndtri

    n, m = (n_pos, n_neg) if metric.startswith("tpr") else (n_neg, n_pos)
    rate, p = TAILS[metric], np.clip(values, 0.5 / n, 1 - 0.5 / n)
    slope = np.exp((ndtri(rate) ** 2 - ndtri(p) ** 2) / 2)
    of_rate: FloatArray = p * (1 - p) / n + slope**2 * rate * (1 - rate) / m
    return of_rate
