"""Stratified bootstrap: each class is resampled to its own size, and every threshold is chosen anew.

Only the order of the scores matters, so samples are replaced by the ranks of their scores and a resample is a
count per rank; its whole ROC is two cumulative sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mia_bench.metrics import roc as exact
from mia_bench.metrics.delong import PairedDifference
from mia_bench.metrics.inputs import BoolArray, FloatArray, IntArray, checked, why_no_comparison
from mia_bench.metrics.intervals import Estimate, clopper_pearson, mean_of_two_proportions, normal_quantile
from mia_bench.metrics.roc import Roc

CELLS_PER_CHUNK = 200_000
"""Resampled ranks held at once; about 60 bytes each, so that they stay in a processor's cache."""


@dataclass(frozen=True, eq=False)
class Resamples:
    """Metrics of every resample, each float64 (n_resamples,).

    Attributes:
        auc: areas, to check DeLong's interval against.
        tpr: by allowed FPR, the largest TPR within it.
        tnr: by allowed FNR, the largest TNR within it.
        asr_oracle: largest (TPR + TNR) / 2.
        n_resamples: how many.
        seed: of the generator; the same seed gives the same resamples, whatever the samples' order.
    """

    auc: FloatArray
    tpr: dict[float, FloatArray]
    tnr: dict[float, FloatArray]
    asr_oracle: FloatArray
    n_resamples: int
    seed: int


def resample(
    roc: Roc, max_rates: Sequence[float] = (0.01, 0.001), *, seed: int = 0, n_resamples: int = 1000
) -> Resamples:
    """Draws stratified resamples of the samples behind a curve and evaluates each.

    Args:
        roc: the exact curve of the samples.
        max_rates: allowed error rates at which TPR and TNR are wanted.
        seed: of the generators (one per class).
        n_resamples: at least 1.

    Raises:
        ValueError: if `n_resamples` is not positive or a rate is not in 0 to 1.
    """
    if n_resamples < 1:
        raise ValueError(f"the bootstrap needs at least one resample, not {n_resamples}")
    neg_rng, pos_rng = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    groups = roc.fp.size - 1
    neg_group = np.repeat(np.arange(groups), np.diff(roc.fp))  # a non-member's rank among distinct scores
    pos_group = np.repeat(np.arange(groups), np.diff(roc.tp))
    rows = max(1, CELLS_PER_CHUNK // (roc.n_neg + roc.n_pos))
    out = Resamples(
        auc=np.empty(n_resamples),
        tpr={rate: np.empty(n_resamples) for rate in max_rates},
        tnr={rate: np.empty(n_resamples) for rate in max_rates},
        asr_oracle=np.empty(n_resamples),
        n_resamples=n_resamples,
        seed=seed,
    )
    for start in range(0, n_resamples, rows):
        part = slice(start, min(start + rows, n_resamples))
        fp = _cumulative(neg_rng, neg_group, groups, part.stop - start)
        tp = _cumulative(pos_rng, pos_group, groups, part.stop - start)
        _evaluate(out, part, fp, tp)
    return out


def tpr_interval(roc: Roc, resamples: Resamples, max_fpr: float, level: float = 0.95) -> Estimate:
    """Largest TPR with FPR at most `max_fpr`, one of the `max_rates` resampled.

    `bootstrap-percentile`; a TPR of 0 or 1, where all resamples agree, gets `clopper-pearson` of the members
    found, which leaves out that the threshold varies too.
    """
    point = exact.tpr_at_fpr(roc, max_fpr)
    return _proportion(point.hits, roc.n_pos, resamples.tpr[max_fpr], level)


def tnr_interval(roc: Roc, resamples: Resamples, max_fnr: float, level: float = 0.95) -> Estimate:
    """Largest TNR with FNR at most `max_fnr`; see `tpr_interval`."""
    point = exact.tnr_at_fnr(roc, max_fnr)
    return _proportion(point.hits, roc.n_neg, resamples.tnr[max_fnr], level)


def asr_oracle_interval(roc: Roc, resamples: Resamples, level: float = 0.95) -> Estimate:
    """Largest (TPR + TNR) / 2 over all thresholds.

    A maximum over thresholds is too large on average, and that within a resample is too large once more: the
    percentile interval of a chance-level attack nearly never holds 0.5. `bootstrap-basic` reflects the
    resamples about the estimate, which takes the excess off instead of doubling it, and is cut at 0.5. What is left
    of it shows: with up to 250 of each class 84 to 91 % of the 95 % intervals hold the truth, most others lie above.
    Perfect separation, where all resamples agree, gets `clopper-pearson` of both rates.
    """
    point = exact.asr_oracle(roc)
    if point.value == 1:
        low, high = mean_of_two_proportions(roc.n_pos, roc.n_pos, roc.n_neg, roc.n_neg, level)
        return Estimate(1.0, low, high, level, "clopper-pearson")
    few, many = _quantiles(resamples.asr_oracle, level)
    low = min(max(2 * point.value - many, 0.5), point.value)
    high = max(min(2 * point.value - few, 1.0), point.value)
    return Estimate(point.value, low, high, level, "bootstrap-basic")


def asr_at_interval(
    scores: ArrayLike,
    member: ArrayLike,
    threshold: float,
    *,
    seed: int = 0,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """Balanced accuracy at a threshold fixed beforehand.

    `bootstrap-percentile`; where TPR or TNR is 0 or 1 and so does not vary among resamples, `clopper-pearson`
    of both rates.

    Returns:
        The balanced accuracy; undefined, with the reason, when a class is missing.
    """
    _, is_member = checked(scores, member)
    reason = why_no_comparison(is_member)
    if reason:
        return Estimate.undefined(reason, level)
    at = exact.rates_at(scores, member, threshold)
    value = at.balanced_accuracy
    if at.tp in (0, at.n_pos) or at.fp in (0, at.n_neg):
        low, high = mean_of_two_proportions(at.tp, at.n_pos, at.n_neg - at.fp, at.n_neg, level)
        return Estimate(value, low, high, level, "clopper-pearson")
    rng = np.random.default_rng(seed)
    # At a fixed threshold a stratified resample is two binomial draws.
    tpr = rng.binomial(at.n_pos, at.tpr, n_resamples) / at.n_pos
    fpr = rng.binomial(at.n_neg, at.fpr, n_resamples) / at.n_neg
    low, high = _quantiles((tpr + 1 - fpr) / 2, level)
    return Estimate(value, min(low, value), max(high, value), level, "bootstrap-percentile")


def paired_tprs(
    scores: Sequence[ArrayLike],
    member: ArrayLike,
    max_rates: Sequence[float] = (0.01, 0.001),
    *,
    seed: int = 0,
    n_resamples: int = 2000,
) -> dict[float, FloatArray]:
    """TPR of several scores of the same samples in the same resamples, each threshold chosen anew in each.

    Differences of rows are those of a paired, stratified bootstrap; see `bootstrap_difference`.

    Args:
        scores: K score lists of shape (N,), higher = member.
        member: (N,), bool.
        max_rates: Allowed FPRs.
        seed: Of the generators (one per class); resamples are of places in the lists, so keep an order of your own.
        n_resamples: At least 1.

    Returns:
        By allowed FPR, float64 (K, n_resamples).

    Raises:
        ValueError: The input is not valid, or a class is missing.
    """
    lists = [checked(one, member) for one in scores]
    is_member = lists[0][1]
    if reason := why_no_comparison(is_member):
        raise ValueError(reason)
    n_neg = int((~is_member).sum())
    n_pos = is_member.size - n_neg
    allowed = {rate: exact.allowed_count(rate, n_neg) for rate in max_rates}
    ranked = [_Ranked.of(values, is_member) for values, _ in lists]
    out = {rate: np.empty((len(lists), n_resamples)) for rate in max_rates}
    neg_rng, pos_rng = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2))
    rows = max(1, CELLS_PER_CHUNK // is_member.size)
    for start in range(0, n_resamples, rows):
        part = slice(start, min(start + rows, n_resamples))
        neg = _times_drawn(neg_rng, n_neg, part.stop - start)
        pos = _times_drawn(pos_rng, n_pos, part.stop - start)
        for k, one in enumerate(ranked):
            places = {rate: one.first_refused(neg, count) for rate, count in allowed.items()}
            above = {rate: one.above[place] for rate, place in places.items()}
            most = max(int(found.max()) for found in above.values())
            found = np.zeros((part.stop - start, most + 1), dtype=np.int64)
            np.cumsum(pos[:, one.pos[:most]], axis=1, out=found[:, 1:])
            for rate, count in above.items():
                out[rate][k, part] = found[np.arange(len(found)), count] / n_pos
    return out


def bootstrap_difference(value: float, drawn: FloatArray, level: float = 0.95) -> PairedDifference:
    """A difference found, and the same in each resample, as an interval and a p-value.

    Args:
        value: -1 to 1.
        drawn: (n_resamples,).
        level: Nominal coverage.

    Returns:
        `bootstrap-percentile`; the p-value is two-sided, of no difference, and at least 2 / (n_resamples + 1).
    """
    low, high = _quantiles(drawn, level)
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p_value = min(1.0, 2 * (tail + 1) / (drawn.size + 1))
    return PairedDifference(Estimate(value, min(low, value), max(high, value), level, "bootstrap-percentile"), p_value)


@dataclass(frozen=True, eq=False)
class _Ranked:
    """One score list by falling score.

    Attributes:
        neg: int64 (n_neg,), order of the non-members; `pos` that of the members.
        above: int64 (n_neg + 1,), members that score above each of these non-members; all of them at the end.
    """

    neg: IntArray
    pos: IntArray
    above: IntArray

    @classmethod
    def of(cls, values: FloatArray, is_member: BoolArray) -> _Ranked:
        mine, others = values[is_member], values[~is_member]
        neg, pos = (np.argsort(-side, kind="stable") for side in (others, mine))
        above = np.searchsorted(-mine[pos], -others[neg], side="left")
        return cls(neg, pos, np.append(above, mine.size))

    def first_refused(self, drawn: IntArray, allowed: int) -> IntArray:
        """Place of the non-member at whose score there would be too many; int64 (rows,), n_neg if there is none."""
        # A resample rarely leaves out so many of the highest that it takes more than these to find that non-member.
        for some in (self.neg[: 2 * allowed + 50], self.neg):
            passed = np.cumsum(drawn[:, some], axis=1)
            if (passed[:, -1] > allowed).all():
                break
        places: IntArray = (passed <= allowed).sum(axis=1)
        return places


def _times_drawn(rng: np.random.Generator, size: int, rows: int) -> IntArray:
    """How often each of `size` samples is drawn in each resample: int64 (rows, size)."""
    drawn = rng.integers(0, size, size=(rows, size))
    drawn += np.arange(rows)[:, None] * size
    counts: IntArray = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)
    return counts


def _cumulative(rng: np.random.Generator, group: IntArray, groups: int, rows: int) -> IntArray:
    """Resampled counts, summed from the highest score down: int64 (rows, groups + 1), first column 0."""
    drawn = group[rng.integers(0, group.size, size=(rows, group.size))]
    drawn += np.arange(rows)[:, None] * (groups + 1) + 1
    counts = np.bincount(drawn.ravel(), minlength=rows * (groups + 1)).reshape(rows, groups + 1)
    return np.cumsum(counts, axis=1, out=counts)


def _evaluate(out: Resamples, part: slice, fp: IntArray, tp: IntArray) -> None:
    """Fills rows `part` of `out` from the resampled curves, (rows, groups + 1) each."""
    n_neg, n_pos = int(fp[0, -1]), int(tp[0, -1])
    row = np.arange(fp.shape[0])
    doubled = np.einsum("ij,ij->i", np.diff(fp, axis=1), tp[:, 1:] + tp[:, :-1])
    out.auc[part] = doubled / (2 * n_neg * n_pos)
    out.asr_oracle[part] = 0.5 + (tp * n_neg - fp * n_pos).max(axis=1) / (2 * n_neg * n_pos)
    for rate, tpr in out.tpr.items():
        within = (fp <= exact.allowed_count(rate, n_neg)).sum(axis=1) - 1
        tpr[part] = tp[row, within] / n_pos
    for rate, tnr in out.tnr.items():
        within = (tp < n_pos - exact.allowed_count(rate, n_pos)).sum(axis=1)
        tnr[part] = (n_neg - fp[row, within]) / n_neg


def _quantiles(values: FloatArray, level: float) -> tuple[float, float]:
    """The two quantiles that leave half of 1 - `level` outside each."""
    normal_quantile(level)  # checks the level
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _proportion(hits: int, total: int, values: FloatArray, level: float) -> Estimate:
    """Percentile interval of hits / total, or Clopper-Pearson at both extremes."""
    value = hits / total
    if hits in (0, total):
        low, high = clopper_pearson(hits, total, level)
        return Estimate(value, low, high, level, "clopper-pearson")
    low, high = _quantiles(values, level)
    # An interval has to hold its estimate, also when the resampled thresholds drift to one side of it.
    return Estimate(value, min(low, value), max(high, value), level, "bootstrap-percentile")
