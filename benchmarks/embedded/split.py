"""The near-duplicate filter and the draw of the split, both before any training."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from concepts import Concept
from numpy.typing import NDArray

NEAR_RGB, NEAR_GREY = 0.004, 0.18
MEMORISED, AUDIT = 24, 400

Images = NDArray[np.float32]


def distinct(found: Sequence[Concept], pixels: NDArray[np.uint8], seed: int) -> dict[int, list[str]]:
    """One concept per family, no two near each other.

    Families are visited in random order; one is dropped when any of its variants is near an image of a family already
    kept, mirror images included.

    Returns:
        Index of each kept concept (its family's shortest label), in Unicode order, with the ids it stands for.
    """
    families: dict[str, list[int]] = {}
    for index, concept in enumerate(found):
        families.setdefault(concept.family, []).append(index)
    visited = sorted(families)
    random.Random(seed).shuffle(visited)

    views = np.stack([pixels, pixels[:, :, ::-1]]).astype(np.float32) / 255  # (2, N, 32, 32, 3)
    rgb, grey = _flat(views), _flat(_normalised(views.mean(-1)))
    kept: dict[int, list[str]] = {}
    seen: list[int] = []
    for name in visited:
        members = families[name]
        near = _nearest(rgb[0, members], rgb[:, seen]) < NEAR_RGB
        near |= _nearest(grey[0, members], grey[:, seen]) < NEAR_GREY
        if not near:
            best = min(members, key=lambda index: (len(found[index].label), index))
            kept[best] = [found[index].id for index in members if index != best]
            seen += members
    return dict(sorted(kept.items()))


def _flat(views: Images) -> Images:
    return views.reshape(*views.shape[:2], -1)


def _normalised(grey: Images) -> Images:
    """Drawings at 16 px, mean 0 and standard deviation 1 each, so that colour and contrast do not matter."""
    small = grey.reshape(*grey.shape[:2], 16, 2, 16, 2).mean((3, 5))
    centred = small - small.mean((-2, -1), keepdims=True)
    return centred / np.maximum(small.std((-2, -1), keepdims=True), 1e-3)


def _nearest(these: Images, others: Images) -> float:
    """Smallest mean squared difference between a row of `these` (n, d) and a row of `others` (2, m, d)."""
    rest = others.reshape(-1, others.shape[-1])
    return min((float(((rest - row) ** 2).mean(-1).min()) for row in these), default=1.0) if len(rest) else 1.0


def draw(count: int, seed: int) -> list[tuple[str, bool | None]]:
    """Split and membership of each of `count` concepts: one shuffle, cut into pieces.

    Nothing is balanced within categories: classes drawn alike to the last detail make cross-validated classifiers
    fall below chance, and a blind test that cannot be trusted on one side cannot be trusted on the other.

    Returns:
        For each concept `("audit" | "calibration", member)` or `("memorised", True)`; `("", None)` for one left over.
    """
    order = list(range(count))
    random.Random(seed).shuffle(order)
    calibration = (count - MEMORISED - 2 * AUDIT) // 2
    drawn: list[tuple[str, bool | None]] = [("", None)] * count
    for part, member, size in (
        ("memorised", True, MEMORISED),
        ("audit", True, AUDIT),
        ("audit", False, AUDIT),
        ("calibration", True, calibration),
        ("calibration", False, calibration),
    ):
        for index in order[:size]:
            drawn[index] = (part, member)
        order = order[size:]
    return drawn
