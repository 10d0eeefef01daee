"""Dataset inference: do the scores of a set of suspects lie above those of known non-members?

After CDI (Dubiński et al. 2024, arXiv:2411.12858): attacks are weighted on one part of the samples and tested on
another. But by permutation: which samples are called suspects is shuffled, and all is done anew for each shuffle, the
fitting of weights on every split included. If the suspects are drawn as the non-members were, each shuffle is as
likely as what was seen; so the p-value is exact at any size, and those of several splits need not be combined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, comb, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from mia_bench.metrics.inputs import FloatArray, IntArray
from mia_bench.metrics.intervals import clopper_pearson

PERMUTATIONS = 9999
PER_DRAW = 99
"""Shuffles of each test where only the share of tests that reject is wanted."""

FOLDS, REPEATS = 5, 2
PRIOR = 1.0
"""Standard errors by which each attack is taken to be above before anything is seen, so that few samples decide little
and a single one is weighed by all attacks."""
RIDGE = 0.1
"""Share of the identity in the correlation matrix that weights come from: attacks often measure nearly the same."""

CELLS_PER_CHUNK = 1_000_000
ROUNDING = 1e-9
"""Statistics nearer than this are equal: the same sums in another order."""


@dataclass(frozen=True, eq=False)
class SetTest:
    """One test.

    Attributes:
        p_value: Chance of a statistic as high or higher, were the suspects drawn as the non-members were.
        n: Units among the suspects; near-duplicates are one unit.
        n_nonmembers: Units among the non-members.
        arrangements: Shuffles counted, with what was seen; 1 / arrangements is the least p-value.
        exact: Whether these are all that there are.
        weights: float64 (D,), share of each attack in the weights, mean over folds; they sum to 1.
        suspects: float64 (n,), score of each unit by weights that it had no part in.
        nonmembers: float64 (n_nonmembers,), likewise.
    """

    p_value: float
    n: int
    n_nonmembers: int
    arrangements: int
    exact: bool
    weights: FloatArray
    suspects: FloatArray
    nonmembers: FloatArray


@dataclass(frozen=True)
class Rejections:
    """How often the test rejects on sets drawn at random: power, or the false-positive rate.

    Attributes:
        n: Suspects in each draw.
        rejected: Draws with a p-value of at most the level.
        draws: All.
        low: Lower end of the share's 95 % interval over draws (Clopper-Pearson).
        high: Upper end.
    """

    n: int
    rejected: int
    draws: int
    low: float
    high: float

    @classmethod
    def of(cls, n: int, rejected: int, draws: int) -> Rejections:
        return cls(n, rejected, draws, *clopper_pearson(rejected, draws))


def set_test(
    suspects: ArrayLike,
    nonmembers: ArrayLike,
    *,
    suspect_groups: Sequence[str] | None = None,
    nonmember_groups: Sequence[str] | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> SetTest:
    """One-sided test that suspects score higher than known non-members, over several attacks at once.

    Each attack's scores are replaced by the normal scores of their ranks among all samples, and averaged over
    near-duplicates. An attack's weight is how far apart the two sides are on other folds, given how attacks agree; no
    weight is negative, so that low scores of suspects are no evidence. The statistic is the difference of the means of
    both sides, every score by the weights that its own fold had no part in.

    Args:
        suspects: (N, D), scores of D attacks, higher = member; +inf and -inf are allowed.
        nonmembers: (M, D).
        suspect_groups: Group of each suspect, length N: near-duplicates share one. Each its own if None.
        nonmember_groups: Likewise, length M.
        permutations: Shuffles drawn where there are more arrangements than that; all of them else.
        seed: Of shuffles and folds.

    Raises:
        ValueError: A score is NaN, a set is empty, or a group is on both sides.
    """
    ours, theirs = _checked(suspects), _checked(nonmembers)
    if ours.shape[1] != theirs.shape[1]:
        raise ValueError(f"scores must be of the same attacks, not of {ours.shape[1]} and {theirs.shape[1]}")
    if shared := set(suspect_groups or ()) & set(nonmember_groups or ()):
        raise ValueError(f"group {min(shared)!r} is among the suspects and among the non-members")
    ranked = normal_scores(np.concatenate([ours, theirs]))
    parts = [_by_group(ranked[: len(ours)], suspect_groups), _by_group(ranked[len(ours) :], nonmember_groups)]
    n, units = len(parts[0]), np.concatenate(parts)
    size = len(units)
    # What is shuffled is in an order that depends neither on labels nor on the input's.
    source = np.random.default_rng(seed)
    order = np.lexsort(units.T[::-1])
    statistic = _Statistic(units[order], source)
    seen = (order < n).astype(np.float64)[None]
    found = statistic.of(seen)[0] - ROUNDING
    exact = comb(size, n) <= permutations + 1
    shuffled = _every(size, n) if exact else _drawn(size, n, permutations, source)
    reached = sum(int((statistic.of(labels) >= found).sum()) for labels in shuffled)
    arrangements = comb(size, n) if exact else permutations + 1
    weights = statistic.weights(seen)[0]
    scores = np.empty(size)
    scores[order] = statistic.held_out(weights)
    share = weights / weights.sum(-1, keepdims=True)
    return SetTest(
        p_value=(reached + (not exact)) / arrangements,  # what was seen is one of the shuffles
        n=n,
        n_nonmembers=size - n,
        arrangements=arrangements,
        exact=exact,
        weights=share.mean(axis=(0, 1)),
        suspects=scores[:n],
        nonmembers=scores[n:],
    )


def p_values(
    population: ArrayLike,
    nonmembers: ArrayLike | None,
    n: int,
    *,
    draws: int,
    permutations: int = PER_DRAW,
    seed: int = 0,
) -> FloatArray:
    """p-values of the test on sets drawn at random, float64 (draws,).

    Args:
        population: (P, D), scores of what sets are drawn from, without replacement in a set.
        nonmembers: (M, D), what they are tested against; None: those of the population that were not drawn.
        n: Suspects in each set, at most P, below it where `nonmembers` is None.
        draws: How many sets.
        permutations: As for `set_test`.
        seed: Of sets, shuffles and folds.
    """
    pool, found = _checked(population), np.empty(draws)
    for i, child in enumerate(np.random.SeedSequence(seed).spawn(draws)):
        source = np.random.default_rng(child)
        order = source.permutation(len(pool))
        others = pool[order[n:]] if nonmembers is None else nonmembers
        test = set_test(pool[order[:n]], others, permutations=permutations, seed=int(source.integers(2**32)))
        found[i] = test.p_value
    return found


def rejections(
    population: ArrayLike, nonmembers: ArrayLike | None, n: int, alpha: float, *, draws: int, seed: int = 0
) -> Rejections:
    """How many of these p-values are at most `alpha`: power at that size, or the false-positive rate."""
    permutations = max(PER_DRAW, ceil(2 / alpha) - 1)
    found = p_values(population, nonmembers, n, draws=draws, permutations=permutations, seed=seed)
    return Rejections.of(n, int((found <= alpha).sum()), draws)


def least_p_value(n: int, m: int) -> float:
    """The smallest p-value that n suspects among m non-members can give: one arrangement of all."""
    return 1 / comb(n + m, n)


def nonmembers_needed(n: int, alpha: float) -> int:
    """Non-members without which n suspects cannot give a p-value of at most `alpha`."""
    return next(m for m in range(1, ceil(1 / alpha) + 1) if least_p_value(n, m) <= alpha)


def detectable_auc(n: int, m: int, alpha: float, power: float = 0.8) -> float:
    """The AUC of suspects against non-members that a rank test of these sizes finds with that chance; approximate."""
    z = NormalDist().inv_cdf(1 - alpha) + NormalDist().inv_cdf(power)
    return min(1.0, 0.5 + z * sqrt((n + m + 1) / (12 * n * m)))


def normal_scores(values: FloatArray) -> FloatArray:
    """Each column's ranks, ties shared, as quantiles of the normal distribution; (N, D) to (N, D)."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    scores: FloatArray = ndtri((rankdata(values, axis=0) - 0.5) / len(values))
    return scores


class _Statistic:
    """The statistic of many labellings of the same units at once: sums over folds are one product of matrices.

    Shapes: B labellings, R repeats, K folds, D attacks, N units.

    Args:
        units: float64 (N, D), in an order that has nothing to do with labels.
        source: Draws the folds, which have nothing to do with labels either.
    """

    def __init__(self, units: FloatArray, source: np.random.Generator) -> None:
        size, width = units.shape
        # Units of equal scores share a fold: which of them is called a suspect must make no difference.
        distinct, which = np.unique(units, axis=0, return_inverse=True)
        folds = min(FOLDS, len(distinct))
        self.units = units
        self.fold = np.stack(
            [(source.permutation(len(distinct)) % folds)[which.reshape(-1)] for _ in range(REPEATS)]
        )  # (R, N)
        inside = (self.fold[:, :, None] == np.arange(folds)).astype(np.float64)
        sums = np.einsum("rnk,nd->nrkd", inside, np.column_stack([units, np.ones(size)]))
        self.total = sums.sum(axis=0)  # (R, K, D + 1): of the scores, and how many
        self.columns = sums.reshape(size, -1)
        spread = units.std(axis=0)
        scaled = (units - units.mean(axis=0)) / np.where(spread > ROUNDING, spread, np.inf)
        self.alike = (1 - RIDGE) * scaled.T @ scaled / size + RIDGE * np.eye(width)
        self.inverse = np.linalg.inv(self.alike)

    def of(self, labels: FloatArray) -> FloatArray:
        """Labels (B, N), 1 = suspect, to statistics (B,)."""
        ours, theirs = self._sums(labels)
        means = [side[..., :-1] / side[:, :1, :, -1:].sum(axis=2, keepdims=True) for side in (ours, theirs)]
        found: FloatArray = (self._weights(ours, theirs) * (means[0] - means[1])).sum(axis=(1, 2, 3))
        return found

    def weights(self, labels: FloatArray) -> FloatArray:
        """Labels (B, N) to weights (B, R, K, D), each fitted on the other folds."""
        return self._weights(*self._sums(labels))

    def held_out(self, weights: FloatArray) -> FloatArray:
        """Weights (R, K, D) to the score of each unit (N,) by those of its own fold."""
        chosen = np.stack([own[fold] for own, fold in zip(weights, self.fold, strict=True)])  # (R, N, D)
        scores: FloatArray = (chosen * self.units).sum(-1).mean(axis=0)
        return scores

    def _sums(self, labels: FloatArray) -> tuple[FloatArray, FloatArray]:
        ours = (labels @ self.columns).reshape(len(labels), *self.total.shape)
        return ours, self.total - ours

    def _weights(self, ours: FloatArray, theirs: FloatArray) -> FloatArray:
        """As in Fisher's discriminant, of unit variance, none negative."""
        others = [side.sum(axis=2, keepdims=True) - side for side in (ours, theirs)]
        difference, information = _difference(others[0], others[1])
        expected = difference + PRIOR / np.sqrt(np.maximum(information, 1))
        raw = np.maximum(expected @ self.inverse, 0)
        raw = np.where(raw.sum(-1, keepdims=True) > ROUNDING, raw, 1)
        weights: FloatArray = raw / np.sqrt((raw @ self.alike * raw).sum(-1, keepdims=True))
        return weights


def _difference(ours: FloatArray, theirs: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sums and counts (..., D + 1) of both sides to the difference of means (..., D) and its information (..., 1).

    Information is the reciprocal of the variance for units of unit variance; 0, with no difference, where a side is
    empty.
    """
    a, b = ours[..., -1:], theirs[..., -1:]
    information = a * b / np.maximum(a + b, 1)
    difference = ours[..., :-1] / np.maximum(a, 1) - theirs[..., :-1] / np.maximum(b, 1)
    kept: FloatArray = np.where(information > 0, difference, 0)
    return kept, information


def _checked(scores: ArrayLike) -> FloatArray:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"scores must be a table of samples and attacks, not of shape {values.shape}")
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} scores are NaN: no rank can be given to them")
    return values


def _by_group(values: FloatArray, groups: Sequence[str] | None) -> FloatArray:
    """Mean of each group, (N, D) to (G, D), in the order in which they first come."""
    if groups is None:
        return values
    place = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    index = np.array([place[group] for group in groups])
    sums = np.zeros((len(place), values.shape[1]))
    np.add.at(sums, index, values)
    means: FloatArray = np.round(sums / np.bincount(index)[:, None], 12)  # sums round by the order of samples
    return means


def _every(size: int, n: int) -> Iterator[FloatArray]:
    """All labellings of n suspects."""
    chosen = np.array(list(combinations(range(size), n)))
    for start in range(0, len(chosen), rows := max(1, CELLS_PER_CHUNK // size)):
        yield _labels(chosen[start : start + rows], size)


def _drawn(size: int, n: int, count: int, source: np.random.Generator) -> Iterator[FloatArray]:
    """`count` labellings of n suspects, each as likely."""
    for start in range(0, count, rows := max(1, CELLS_PER_CHUNK // size)):
        keys = source.random((min(rows, count - start), size))
        yield _labels(np.argpartition(keys, n - 1, axis=1)[:, :n], size)


def _labels(chosen: IntArray, size: int) -> FloatArray:
    labels = np.zeros((len(chosen), size))
    np.put_along_axis(labels, chosen, 1.0, axis=1)
    return labels
