"""Dataset inference: the level holds at any size, and what is above is found."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from mia_bench.metrics.set_test import (
    detectable_auc,
    least_p_value,
    nonmembers_needed,
    normal_scores,
    p_values,
    rejections,
    set_test,
)

# Few distinct values: ties within and between the sides.
POOLS = st.integers(5, 7).flatmap(
    lambda n: st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=n, max_size=n)
)


def shifted(n=40, m=200, by=(1.0, 0.0), seed=0):
    source = np.random.default_rng(seed)
    return source.normal(size=(n, len(by))) + np.array(by), source.normal(size=(m, len(by)))


@settings(max_examples=30, deadline=None)
@given(POOLS, st.integers(1, 3), st.integers(0, 5))
def test_no_p_value_comes_up_more_often_than_it_says(pool, n, seed):
    """Whichever n of the pool are called suspects: at most a share x of the choices has a p-value of x or less."""
    values = np.array(pool, dtype=float)
    found = []
    for chosen in combinations(range(len(values)), n):
        inside = np.isin(np.arange(len(values)), chosen)
        test = set_test(values[inside], values[~inside], seed=seed)
        assert test.exact and test.arrangements == comb(len(values), n)
        found.append(test.p_value)
    ordered = np.sort(found)
    for x in ordered:
        assert np.mean(ordered <= x + 1e-12) <= x + 1e-12


@settings(max_examples=25, deadline=None)
@given(POOLS, st.integers(1, 4), st.randoms(use_true_random=False), st.sampled_from([9, 9999]))
def test_the_order_of_samples_and_the_scale_of_scores_do_not_matter(pool, n, source, permutations):
    values = np.array(pool, dtype=float)
    ours, theirs = values[:n], values[n:]
    before = set_test(ours, theirs, permutations=permutations)
    mixed = [[*range(len(side))] for side in (ours, theirs)]
    for order in mixed:
        source.shuffle(order)
    for change in (lambda x: x, lambda x: x**3 - 7, np.exp):
        after = set_test(change(ours)[mixed[0]], change(theirs)[mixed[1]], permutations=permutations)
        assert after.p_value == before.p_value
        assert after.weights == pytest.approx(before.weights)


@pytest.mark.parametrize("n", [1, 5, 40])
def test_the_level_holds_where_shuffles_are_drawn(n):
    pool = np.random.default_rng(n).standard_t(2, size=(80, 3)).round(1)
    found = p_values(pool, None, n, draws=300, seed=n)
    for alpha in (0.05, 0.2):
        test = binomtest(
            int((found <= alpha).sum()), len(found), alpha, alternative="two-sided" if n > 1 else "greater"
        )
        assert test.pvalue > 1e-3


def test_low_scores_of_suspects_are_no_evidence():
    suspects, others = shifted(by=(-1.0, -1.0))
    assert set_test(suspects, others, permutations=999).p_value > 0.9


def test_the_attack_that_tells_gets_the_weight_and_all_together_tell_more():
    suspects, others = shifted(n=60, by=(0.5, 0.0, 0.0))
    found = set_test(suspects, others, permutations=999)
    assert found.weights[0] > 0.45 and found.weights.sum() == pytest.approx(1) and (found.weights >= 0).all()
    assert found.suspects.mean() > found.nonmembers.mean()
    both = rejections(*shifted(n=300, by=(0.4, 0.4)), 20, 0.05, draws=60)
    one = rejections(*(side[:, :1] for side in shifted(n=300, by=(0.4, 0.4))), 20, 0.05, draws=60)
    assert both.rejected > one.rejected > 6
    assert both.low < both.rejected / both.draws < both.high


def test_power_grows_with_the_set():
    suspects, others = shifted(n=300, by=(0.4,))
    few, many = (rejections(suspects, others, n, 0.05, draws=60).rejected for n in (5, 80))
    assert few + 20 < many


def test_near_duplicates_are_one_sample():
    source = np.random.default_rng(0)
    others = source.normal(size=(10, 2))
    copies = np.full((30, 2), 5.0)
    alone = set_test(copies, others)
    assert alone.p_value < 1e-3
    together = set_test(copies, others, suspect_groups=["a"] * 30)
    assert (together.n, together.n_nonmembers, together.p_value) == (1, 10, pytest.approx(1 / 11))
    halved = set_test(copies, others, suspect_groups=["a"] * 30, nonmember_groups=[f"g{i // 2}" for i in range(10)])
    assert (halved.n_nonmembers, halved.p_value) == (5, pytest.approx(1 / 6))


def test_scores_that_say_nothing_and_infinite_ones():
    assert set_test(np.ones((3, 2)), np.ones((5, 2))).p_value == 1
    found = set_test([[np.inf], [np.inf]], [[-np.inf], [0.0], [1.0], [2.0]])
    assert found.p_value == pytest.approx(1 / 15)


@pytest.mark.parametrize(
    ("ours", "theirs", "groups"),
    [
        ([[np.nan]], [[1.0]], None),
        ([], [[1.0]], None),
        ([[1.0]], [[1.0, 2.0]], None),
        ([[1.0]], [[2.0]], ["a"]),
    ],
)
def test_what_cannot_be_tested(ours, theirs, groups):
    with pytest.raises(ValueError):
        set_test(ours, theirs, suspect_groups=groups, nonmember_groups=groups)


def test_how_many_it_takes():
    assert [nonmembers_needed(n, 0.05) for n in (1, 2, 3, 10, 100)] == [19, 5, 3, 2, 1]
    for n in range(1, 8):
        m = nonmembers_needed(n, 0.01)
        assert least_p_value(n, m) <= 0.01 < least_p_value(n, m - 1)
    assert 0.5 < detectable_auc(400, 400, 0.05) < detectable_auc(30, 400, 0.05) < detectable_auc(3, 5, 0.05) == 1
    source = np.random.default_rng(3)
    at = detectable_auc(30, 100, 0.05)
    by = np.sqrt(2) * normal_scores_inverse(at)
    found = sum(
        set_test(source.normal(by, size=(30, 1)), source.normal(size=(100, 1)), permutations=99).p_value <= 0.05
        for _ in range(150)
    )
    assert 0.68 < found / 150 < 0.92, "0.8 is what is said"


def normal_scores_inverse(share):
    from scipy.special import ndtri

    return ndtri(share)


def test_normal_scores_share_ties():
    found = normal_scores(np.array([[1.0], [2.0], [2.0], [9.0]]))[:, 0]
    assert found[1] == found[2] == pytest.approx(0) and found[0] == pytest.approx(-found[3])
