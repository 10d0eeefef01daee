"""How far apart two sets of samples are before any model is asked: in embeddings, in caption length, in words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from mia_bench.metrics.holm import holm

WORD = re.compile(r"[^\W_]+")
LEAST_HALF = 10  # samples
LEAST_CAPTIONS = 5  # a word must be in: a rarer one can hardly differ
ALPHA = 0.05


def frechet(left: ArrayLike, right: ArrayLike) -> float:
    """Fréchet distance of the normal distributions fitted to two sets of vectors (Dowson and Landau 1982).

    It grows as sets get smaller: compare only distances of sets of one size.

    Args:
        left: (N, D), N at least 2.
        right: (M, D), M at least 2.

    Returns:
        At least 0.
    """
    sets = [np.asarray(values, dtype=np.float64) for values in (left, right)]
    means = [values.mean(axis=0) for values in sets]
    # R'R is the covariance; then tr sqrt(S1 S2) is the sum of the singular values of R1 R2'.
    roots = [np.linalg.qr(v - m, mode="r") / np.sqrt(len(v) - 1) for v, m in zip(sets, means, strict=True)]
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    spread = sum((root**2).sum() for root in roots) - 2 * shared
    return float(max(0.0, ((means[0] - means[1]) ** 2).sum() + spread))


@dataclass(frozen=True)
class FrechetShift:
    """Distance of members and non-members, beside that of members and other members.

    Attributes:
        half: Samples in each set compared.
        value: Mean over the draws.
        low: Least of the draws; `high` the most.
        floor: The same between members; `floor_low`, `floor_high` likewise.
    """

    half: int
    value: float
    low: float
    high: float
    floor: float
    floor_low: float
    floor_high: float


def frechet_shift(embeddings: ArrayLike, member: ArrayLike, draws: int = 10, seed: int = 0) -> FrechetShift:
    """Compare random halves of the members with other members and with as many non-members.

    Args:
        embeddings: (N, D).
        member: (N,), bool.
        draws: How many times.
        seed: Of the draws.

    Raises:
        ValueError: The halves would have fewer than `LEAST_HALF` samples.
    """
    vectors, is_member = np.asarray(embeddings, dtype=np.float64), np.asarray(member, dtype=bool)
    ours, others = np.flatnonzero(is_member), np.flatnonzero(~is_member)
    half = min(len(ours) // 2, len(others))
    if half < LEAST_HALF:
        raise ValueError(f"{len(ours)} members and {len(others)} non-members; {2 * LEAST_HALF} and {LEAST_HALF} needed")
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(draws):
        mixed, opposite = rng.permutation(ours), rng.permutation(others)[:half]
        first, second = mixed[:half], mixed[half : 2 * half]
        drawn.append([frechet(vectors[first], vectors[rest]) for rest in (opposite, second)])
    shift, floor = np.array(drawn).T
    numbers = (float(of(values)) for values in (shift, floor) for of in (np.mean, np.min, np.max))
    return FrechetShift(half, *numbers)


@dataclass(frozen=True)
class WordShift:
    """A word that captions of one class hold more often.

    Attributes:
        word: In lower case.
        members: Captions of members with the word; `nonmembers` likewise.
        p_value: Two-sided, exact, adjusted for all words tested (Holm).
    """

    word: str
    members: int
    nonmembers: int
    p_value: float


def word_shift(members: Sequence[str], nonmembers: Sequence[str]) -> tuple[list[WordShift], int]:
    """Words whose share of captions differs between two sets, the surest first, and how many words were tested.

    Fisher's exact test on each word's number of captions, adjusted so that in one of twenty pairs of equal sets any
    word is named.
    """
    from scipy.stats import hypergeom

    ours, others = (Counter(w for c in captions for w in set(words_of(c))) for captions in (members, nonmembers))
    words = sorted(w for w in ours.keys() | others.keys() if ours[w] + others[w] >= LEAST_CAPTIONS)
    if not words or not members or not nonmembers:
        return [], 0
    found = np.array([ours[w] for w in words])
    both = found + np.array([others[w] for w in words])
    drawn = hypergeom(len(members) + len(nonmembers), both, len(members))
    p_values = np.minimum(1.0, 2 * np.minimum(drawn.cdf(found), drawn.sf(found - 1)))
    rows = [WordShift(w, ours[w], others[w], p) for w, p in zip(words, holm(p_values.tolist()), strict=True)]
    return sorted((r for r in rows if r.p_value < ALPHA), key=lambda r: (r.p_value, r.word)), len(words)


def words_of(caption: str) -> list[str]:
    """Runs of letters and digits, in lower case."""
    return WORD.findall(caption.lower())
