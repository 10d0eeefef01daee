"""Closed-form intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from mia_bench.metrics import clopper_pearson, mean_of_two_proportions, wilson


@pytest.mark.parametrize(("count", "total"), [(0, 7), (3, 7), (7, 7), (1, 2500), (2499, 2500), (1, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_clopper_pearson_is_the_exact_binomial_interval(count: int, total: int, level: float) -> None:
    other = binomtest(count, total).proportion_ci(level, method="exact")
    assert clopper_pearson(count, total, level) == pytest.approx((other.low, other.high), abs=1e-9)


@pytest.mark.parametrize(("count", "total"), [(0, 7), (3, 7), (7, 7), (11, 25), (1, 2500), (2499, 2500), (1, 1)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_is_the_score_interval(count: int, total: int, level: float) -> None:
    other = binomtest(count, total).proportion_ci(level, method="wilson")
    assert wilson(count, total, level) == pytest.approx((other.low, other.high), abs=1e-9)


def test_the_mean_of_two_proportions_keeps_a_width_at_the_ends() -> None:
    low, high = mean_of_two_proportions(20, 20, 30, 30)
    assert high == 1
    assert 0.85 < low < 0.95


def test_the_mean_of_two_proportions_is_covered() -> None:
    rng = np.random.default_rng(0)
    for n_a, p_a, n_b, p_b in [
        (20, 0.97, 30, 0.97),
        (15, 0.0, 200, 1.0),
        (50, 0.6, 50, 0.55),
        (12, 0.99, 300, 0.9),
    ]:
        draws = zip(rng.binomial(n_a, p_a, 500).tolist(), rng.binomial(n_b, p_b, 500).tolist(), strict=True)
        ends = np.array([mean_of_two_proportions(a, n_a, b, n_b) for a, b in draws])
        truth = (p_a + p_b) / 2
        assert ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean() >= 0.94


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        clopper_pearson(1, 2, level)
