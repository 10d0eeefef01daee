"""One score among those of known non-members."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mia_bench.metrics.conformal import conformal_p, needed, percentile

SCORES = st.lists(st.integers(0, 6).map(float) | st.sampled_from([np.inf, -np.inf]), min_size=2, max_size=25)


@given(SCORES)
def test_no_p_value_comes_up_more_often_than_it_says(pool):
    """Each of the pool in turn is the new one, as all are as likely to be."""
    found = [float(conformal_p([one], pool[:i] + pool[i + 1 :])[0]) for i, one in enumerate(pool)]
    for x in found:
        assert np.mean(np.array(found) <= x) <= x + 1e-12


@given(SCORES, SCORES, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_higher_is_rarer(ours, known, source):
    mixed = source.sample(known, len(known))
    p, share = conformal_p(ours, known), percentile(ours, known)
    assert (conformal_p(ours, mixed) == p).all() and (percentile(ours, mixed) == share).all()
    assert ((p >= 1 / (len(known) + 1)) & (p <= 1)).all() and ((share >= 0) & (share <= 1)).all()
    rising = np.argsort(ours, kind="stable")
    assert (np.diff(p[rising]) <= 0).all() and (np.diff(share[rising]) >= 0).all()


def test_by_hand():
    assert conformal_p([0.5, 2.0, 3.0, 9.0], [1.0, 2.0, 2.0, 3.0]) == pytest.approx([1, 4 / 5, 2 / 5, 1 / 5])
    assert percentile([0.5, 2.0, 9.0], [1.0, 2.0, 2.0, 3.0]) == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.1, 0.003])
@pytest.mark.parametrize("tests", [1, 5, 30])
def test_how_many_it_takes(alpha, tests):
    n = needed(alpha, tests)
    assert tests / (n + 1) <= alpha * (1 + 1e-12) and tests / n > alpha


@pytest.mark.parametrize(("ours", "known"), [([1.0], []), ([np.nan], [1.0]), ([1.0], [np.nan])])
def test_what_has_no_place(ours, known):
    with pytest.raises(ValueError):
        conformal_p(ours, known)
