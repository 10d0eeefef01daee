"""Samples of unknown membership against thresholds that come from known non-members alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mia_bench.metrics import bootstrap
from mia_bench.metrics.models import Exceedance, Metric, Suspects
from mia_bench.metrics.roc import allowed_count, exact_roc
from mia_bench.metrics.summary import tail_status

RATES = (0.01, 0.05)
"""False-positive rates at which samples are counted."""


def passing(max_fpr: float, n: int) -> int:
    """Non-members that may reach a threshold for others: floor(max_fpr * (n + 1)) - 1, -1 if no threshold will do.

    One fewer than the rate allows among these, since the next non-member is as likely to fall into any of the n + 1
    gaps between their scores: so it passes with a chance of at most `max_fpr`, whatever the scores' distribution (Vovk,
    Gammerman, Shafer 2005). With `floor(max_fpr * n)` of 100 it would be 2 % where 1 % is said.
    """
    return allowed_count(max_fpr, n + 1) - 1


def threshold_at(nonmembers: ArrayLike, max_fpr: float) -> float:
    """The lowest threshold that a new non-member passes with a chance of at most `max_fpr`.

    Args:
        nonmembers: (N,), scores of known non-members.
        max_fpr: 0 to 1.

    Returns:
        Scores at or above it are called members; it lies just above a non-member's score. +inf calls nothing a member,
        where there are too few non-members for that rate.
    """
    falling: NDArray[np.float64] = np.sort(np.asarray(nonmembers, dtype=np.float64))[::-1]
    allowed = passing(max_fpr, falling.size)
    if allowed < 0:
        return np.inf
    return float(np.nextafter(falling[allowed], np.inf)) if allowed < falling.size else -np.inf


def exceeding(
    suspects: ArrayLike,
    nonmembers: ArrayLike,
    *,
    rates: Sequence[float] = RATES,
    seed: int = 0,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Suspects:
    """How many suspects score above thresholds that the non-members alone decide.

    The interval of the share is of the bootstrap of both sets, the threshold chosen anew in each resample. A rate that
    so few non-members cannot resolve is flagged or undefined, by the rule for all such rates.

    Args:
        suspects: (M,), scores of at least one sample of unknown membership, higher = member.
        nonmembers: (N,), scores of at least one known non-member.
        rates: False-positive rates of new non-members.
        seed: Of the bootstrap.
        n_resamples: Of the bootstrap.
        level: Nominal coverage of the intervals.

    Raises:
        ValueError: A score is NaN, or a set is empty.
    """
    unknown, known = np.asarray(suspects, dtype=np.float64), np.asarray(nonmembers, dtype=np.float64)
    curve = exact_roc(np.concatenate([unknown, known]), np.arange(unknown.size + known.size) < unknown.size)
    share_of = {rate: max(passing(rate, known.size), 0) / known.size for rate in rates}
    resamples = bootstrap.resample(curve, list(share_of.values()), seed=seed, n_resamples=n_resamples)
    found = []
    for rate in rates:
        status, rankable, reason = tail_status(rate, known.size)
        if status == "undefined":
            nothing = Metric(value=None, low=None, high=None, level=level, status=status, reason=reason)
            found.append(Exceedance(max_fpr=rate, above=None, share=nothing))
            continue
        threshold = threshold_at(known, rate)
        # An infinite one calls nothing a member, even where a score is infinite itself.
        above, errors = (int((s >= threshold).sum()) if threshold < np.inf else 0 for s in (unknown, known))
        estimate = bootstrap.tpr_interval(curve, resamples, share_of[rate], level)
        share = Metric(
            value=above / unknown.size,
            low=estimate.low,
            high=estimate.high,
            level=level,
            status=status,
            reason=reason,
            method=estimate.method,
            rankable=rankable,
            realised=errors / known.size,
            count=errors,
            threshold=threshold,
        )
        found.append(Exceedance(max_fpr=rate, above=above, share=share))
    return Suspects(n=unknown.size, n_nonmembers=known.size, rates=tuple(found))
