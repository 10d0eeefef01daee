"""The mirror test: what of an AUC does the split contribute, and what the model?

One attack scores the same images on a target and on its mirror, trained by the same recipe on the other half. An attack
that only reads the model gives AUC and 1 - AUC under one labelling, so AUC + AUC_mirror - 1 is 0; what is left over is
due to images that look like members to it whoever was trained on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from mia_bench.metrics.inputs import IntArray, checked


@dataclass(frozen=True)
class Mirrored:
    """Mirror test of one attack.

    Attributes:
        auc: On the target, members of the target as positives.
        auc_mirror: On the mirror, members of the mirror as positives.
        deviation: AUC + AUC_mirror - 1, both with the target's members as positives; 0 for an honest attack.
        low: Lower end of the deviation's percentile interval.
        high: Upper end.
        p_value: Two-sided, from the same resamples, not adjusted.
    """

    auc: float
    auc_mirror: float
    deviation: float
    low: float
    high: float
    p_value: float


def mirror_test(
    scores: ArrayLike,
    mirror_scores: ArrayLike,
    member: ArrayLike,
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Mirrored:
    """Deviation of one attack with a paired, stratified bootstrap over images.

    An image is drawn with both its scores. The target's training is not resampled, so an interval is about these two
    models.

    Args:
        scores: float64 (N,), on the target; higher = member.
        mirror_scores: float64 (N,), on the mirror, of the same images in the same order.
        member: bool (N,), members of the target; the others are the mirror's.
        level: Of the interval.
        n_resamples: At least 1; the smallest p-value is 2 / (n_resamples + 1).
        seed: Of the generator.

    Raises:
        ValueError: Lengths differ, a class is empty, or a score is NaN.
    """
    ours, labels = checked(scores, member)
    theirs, _ = checked(mirror_scores, member)
    if labels.all() or not labels.any():
        raise ValueError("the mirror test needs members of both targets")
    ranks = [rankdata(values, method="dense").astype(np.int64) - 1 for values in (ours, theirs)]
    positive, negative = np.flatnonzero(labels), np.flatnonzero(~labels)
    auc, swapped = (_auc(r, positive, negative) for r in ranks)
    rng = np.random.default_rng(seed)
    drawn = np.empty(n_resamples)
    for i in range(n_resamples):
        pos, neg = rng.choice(positive, positive.size), rng.choice(negative, negative.size)
        drawn[i] = sum(_auc(r, pos, neg) for r in ranks) - 1
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    tail = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p_value = min(1.0, 2 * (tail + 1) / (n_resamples + 1))
    return Mirrored(auc, 1 - swapped, auc + swapped - 1, float(low), float(high), float(p_value))


def _auc(ranks: IntArray, positive: IntArray, negative: IntArray) -> float:
    """Mann-Whitney with ties counted one half, from dense ranks and the rows of both classes."""
    size = int(ranks.max()) + 1
    pos, neg = np.bincount(ranks[positive], minlength=size), np.bincount(ranks[negative], minlength=size)
    below = np.cumsum(neg) - neg
    return float((pos * (below + neg / 2)).sum() / (pos.sum() * neg.sum()))
