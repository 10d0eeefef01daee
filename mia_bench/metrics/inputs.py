"""Scores and labels as every metric wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def checked(scores: ArrayLike, member: ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Scores and labels as arrays of one length.

    Args:
        scores: (N,), any float or integer type; +inf and -inf are allowed.
        member: (N,), bool, or integers that are all 0 or 1.

    Returns:
        float64 (N,) and bool (N,).

    Raises:
        ValueError: on NaN scores (says how many), other labels, or shapes that differ.
    """
    values = np.asarray(scores, dtype=np.float64)
    raw: NDArray[Any] = np.asarray(member)
    if values.ndim != 1 or raw.shape != values.shape:
        raise ValueError(f"scores and labels must be two lists of one length, not {values.shape} and {raw.shape}")
    if raw.dtype != np.bool_ and not np.isin(raw, (0, 1)).all():
        raise ValueError("labels must be true (member) or false (non-member)")
    missing = int(np.isnan(values).sum())
    if missing:
        raise ValueError(f"{missing} of {values.size} scores are NaN: no threshold can place them")
    return values, raw.astype(np.bool_)


def why_no_comparison(member: BoolArray, classes: tuple[str, str] = ("members", "non-members")) -> str | None:
    """The reason why no metric exists when a class is missing; None when both are there."""
    if member.size == 0:
        return "no audit samples: nothing to compare"
    if member.all() or not member.any():
        kind = classes[0] if member.all() else classes[1]
        return f"all {member.size} audit samples are {kind}: nothing to compare with"
    return None
