"""Estimates with their intervals, and the closed-form intervals the other modules share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, or the reason why there is none.

    Attributes:
        value: the estimate, in 0 to 1 (differences: -1 to 1); None when undefined.
        low: lower end of the interval; None when undefined.
        high: upper end of the interval; None when undefined.
        level: nominal coverage, for example 0.95.
        method: name of the interval's method, for example `delong-logit`; empty when undefined.
        reason: why the estimate is undefined; None otherwise.
    """

    value: float | None
    low: float | None
    high: float | None
    level: float
    method: str
    reason: str | None = None

    @classmethod
    def undefined(cls, reason: str, level: float) -> Estimate:
        """An estimate that does not exist, and why."""
        return cls(None, None, None, level, "", reason)


def normal_quantile(level: float) -> float:
    """Two-sided standard normal quantile: 1.96 for `level` 0.95.

    Raises:
        ValueError: if `level` is not strictly between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"the interval's level must lie between 0 and 1, not {level}")
    return NormalDist().inv_cdf(0.5 + level / 2)


def clopper_pearson(count: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Exact (conservative) binomial interval; Clopper and Pearson 1934.

    Args:
        count: successes, 0 to `total`.
        total: trials, at least 1.
        level: nominal coverage.

    Returns:
        Lower and upper end, in 0 to 1.
    """
    from scipy.special import betaincinv

    normal_quantile(level)  # checks the level
    tail = (1 - level) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, total - count + 1, tail))
    high = 1.0 if count == total else float(betaincinv(count + 1, total - count, 1 - tail))
    return low, high


def wilson(count: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion; Wilson 1927, J Am Stat Assoc 22:209.

    Args:
        count: successes, 0 to `total`.
        total: trials, at least 1.
        level: nominal coverage.

    Returns:
        Lower and upper end, in 0 to 1.
    """
    z = normal_quantile(level)
    share, weight = count / total, z * z / total
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    low = 0.0 if count == 0 else max(0.0, middle - half)
    high = 1.0 if count == total else min(1.0, middle + half)
    return low, high


def mean_of_two_proportions(
    count_a: int, total_a: int, count_b: int, total_b: int, level: float = 0.95
) -> tuple[float, float]:
    """Interval of (a + b) / 2 for two independent proportions, from the Clopper-Pearson interval of each.

    The two are joined by the square-and-add rule (MOVER; Zou and Donner 2008, Stat Med 27:1693), which keeps
    a sensible width where a proportion is 0 or 1 and resampling gives none.

    Args:
        count_a: successes of the first proportion.
        total_a: its trials, at least 1.
        count_b: successes of the second proportion.
        total_b: its trials, at least 1.
        level: nominal coverage.

    Returns:
        Lower and upper end, in 0 to 1.
    """
    a, b = count_a / total_a, count_b / total_b
    low_a, high_a = clopper_pearson(count_a, total_a, level)
    low_b, high_b = clopper_pearson(count_b, total_b, level)
    low = (a + b - math.hypot(a - low_a, b - low_b)) / 2
    high = (a + b + math.hypot(high_a - a, high_b - b)) / 2
    return max(0.0, low), min(1.0, high)
