"""One image among known non-members: how often does one that was never seen score as high?"""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import numpy as np
from numpy.typing import ArrayLike

from mia_bench.metrics.inputs import FloatArray


def conformal_p(scores: ArrayLike, nonmembers: ArrayLike) -> FloatArray:
    """(1 + non-members with a score as high) / (non-members + 1), of each score.

    A new non-member is as likely to fall into any gap between those known, itself included, so its p-value is at most x
    with a chance of at most x, whatever the scores' distribution (Vovk, Gammerman, Shafer 2005). Ties count against.

    Args:
        scores: (M,), higher = member.
        nonmembers: (N,), at least one.

    Returns:
        float64 (M,), from 1 / (N + 1) to 1.

    Raises:
        ValueError: A score is NaN, or there is no non-member.
    """
    ours, known = (np.asarray(values, dtype=np.float64) for values in (scores, nonmembers))
    if not known.size:
        raise ValueError("there is no known non-member")
    if np.isnan(ours).any() or np.isnan(known).any():
        raise ValueError("a score is NaN: no rank can be given to it")
    reaching = known.size - np.searchsorted(np.sort(known), ours, side="left")
    p_values: FloatArray = (1 + reaching) / (known.size + 1)
    return p_values


def percentile(scores: ArrayLike, nonmembers: ArrayLike) -> FloatArray:
    """Share of known non-members below each score, ties counted one half; float64 (M,) in 0 to 1."""
    ours, known = (np.asarray(values, dtype=np.float64) for values in (scores, nonmembers))
    ordered = np.sort(known)
    below, to = (np.searchsorted(ordered, ours, side=side) for side in ("left", "right"))
    shares: FloatArray = (below + to) / (2 * known.size)
    return shares


def needed(alpha: float, tests: int = 1) -> int:
    """Known non-members without which no score can have a p-value of at most `alpha` after Holm over `tests`."""
    return ceil(tests / Fraction(str(alpha))) - 1
