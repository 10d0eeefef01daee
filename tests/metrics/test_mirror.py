"""The mirror test: zero for an attack that reads the model, the split's share otherwise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from mia_bench.metrics.holm import holm
from mia_bench.metrics.mirror import mirror_test


def pair(seed, n=200, model=1.0, split=0.0):
    """Scores on a target and its mirror: what the model adds swaps sides, what the split adds does not."""
    rng = np.random.default_rng(seed)
    member = np.repeat([True, False], n)
    image = rng.normal(size=2 * n)  # hard and easy images are so on both
    ours = image + rng.normal(size=2 * n) + model * member + split * member
    theirs = image + rng.normal(size=2 * n) + model * ~member + split * member
    return ours, theirs, member


def test_figures_are_auc_on_each_model_with_its_own_members():
    ours, theirs, member = pair(0)
    found = mirror_test(ours, theirs, member, n_resamples=10)
    assert found.auc == pytest.approx(roc_auc_score(member, ours))
    assert found.auc_mirror == pytest.approx(roc_auc_score(~member, theirs))
    assert found.deviation == pytest.approx(roc_auc_score(member, ours) + roc_auc_score(member, theirs) - 1)


def test_ties_count_one_half():
    rng = np.random.default_rng(5)
    ours, theirs, member = rng.integers(0, 4, 80), rng.integers(0, 4, 80), np.repeat([True, False], 40)
    found = mirror_test(ours, theirs, member, n_resamples=10)
    assert found.auc == pytest.approx(roc_auc_score(member, ours))
    assert found.auc_mirror == pytest.approx(roc_auc_score(~member, theirs))


def test_an_honest_attack_passes_at_the_nominal_rate():
    found = [mirror_test(*pair(seed, n=100), n_resamples=300) for seed in range(60)]
    held = np.mean([f.low <= 0 <= f.high for f in found])
    assert held >= 0.88, "nominal 0.95; 60 repetitions"
    assert np.mean([f.p_value < 0.05 for f in found]) <= 0.12


def test_what_the_split_contributes_is_found():
    found = mirror_test(*pair(1, split=0.8))
    assert found.low > 0.05 and found.p_value < 0.01
    below = mirror_test(*pair(1, model=0, split=-0.8))
    assert below.high < 0 and below.p_value < 0.01


def test_images_are_resampled_in_pairs():
    """Scores that are equal on both models cancel image by image; unpaired resamples would not see that."""
    member = np.repeat([True, False], 100)
    image = np.random.default_rng(2).normal(size=200)
    found = mirror_test(image, -image, member)
    assert found.deviation == pytest.approx(0, abs=1e-12)
    assert found.high - found.low < 1e-9


def test_the_same_call_gives_the_same_figures():
    assert mirror_test(*pair(3)) == mirror_test(*pair(3))


@pytest.mark.parametrize("member", [[True, True], [False, False]])
def test_one_class_cannot_be_tested(member):
    with pytest.raises(ValueError, match="members of both"):
        mirror_test([0, 1], [1, 0], member)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_the_plain_and_the_bonferroni_value(p_values):
    for plain, adjusted in zip(p_values, holm(p_values), strict=True):
        assert plain <= adjusted <= min(1, plain * len(p_values))
    assert sorted(range(len(p_values)), key=lambda i: (p_values[i], i)) == sorted(
        range(len(p_values)), key=lambda i: (holm(p_values)[i], p_values[i], i)
    )
