"""The gate's statistics: which scores are others, and which change is more than chance."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mia_bench.metrics import exact_roc, paired_delong, tnr_at_fnr, tpr_at_fpr
from mia_bench.metrics.gate import Change, change, departures, displacements, judged_together

SETTINGS = settings(max_examples=60, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


def pair(seed, n=40, before=0.5, after=0.5, rho=0.8):
    """Correlated scores of n members and n non-members."""
    rng = np.random.default_rng(seed)
    member = np.arange(2 * n) < n
    noise = rng.standard_normal(2 * n)
    later = rho * noise + math.sqrt(1 - rho**2) * rng.standard_normal(2 * n)
    return noise + before * member, later + after * member, member


def a_change(value, spread=0.02, **fields):
    given = {"metric": "auc", "before": 0.6, "df": 80.0, "pieces": 80.0, "n_members": 50, "n_nonmembers": 50}
    return Change(**{**given, "after": 0.6 + value, "spread": spread, **fields})


# Same scores --------------------------------------------------------------------------------------------------------


@given(seed=SEEDS, scale=st.floats(1e-6, 1e6), shift=st.floats(-3, 3))
@SETTINGS
def test_rounding_passes_and_a_moved_score_does_not(seed, scale, shift):
    rng = np.random.default_rng(seed)
    before = scale * (rng.standard_normal(50) + shift)
    after = before * (1 + 1e-6 * rng.uniform(-1, 1, 50))
    assert departures(before, after, 1e-3).max() <= 1
    spread = np.subtract(*np.quantile(before, [0.75, 0.25]))
    after[7] += 0.01 * spread
    assert np.flatnonzero(departures(before, after, 1e-3) > 1).tolist() == [7]
    assert departures(before, after, 0.1).max() <= 1


def test_scores_far_from_0_have_no_room_to_be_drawn_anew():
    rng = np.random.default_rng(0)
    before, after = 1e4 + 0.01 * rng.standard_normal((2, 200))
    assert (departures(before, after, 1e-3) > 1).mean() > 0.9
    for far in (1e2, 1e4):  # spreads of 1: what float32 rounds passes
        before = far + rng.standard_normal(200)
        assert departures(before, before.astype(np.float32), 1e-3).max() <= 1
        assert departures(before, before * (1 + 3e-6 * rng.uniform(-1, 1, 200)), 1e-3).max() <= 1
    same = np.full(9, 1e4)
    assert departures(same, same * (1 + 1e-6), 1e-3).max() <= 1, "no spread to go by"


def test_an_outlier_does_not_make_room_for_the_others():
    before = np.append(np.linspace(0, 1, 49), 1e9)
    after = before.copy()
    after[3] += 0.01
    assert departures(before, after, 1e-3)[3] > 1


def test_infinite_and_constant_scores():
    before = np.array([np.inf, -np.inf, 1.0, 2.0, 3.0])
    assert (departures(before, before, 1e-3) == 0).all()
    assert departures(before, np.array([-np.inf, -np.inf, 1, 2, 3]), 1e-3).tolist()[:2] == [np.inf, 0]
    zeros = np.zeros(5)
    assert (departures(zeros, zeros, 1e-3) == 0).all()
    assert (departures(zeros, zeros + 1e-9, 1e-3) == np.inf).all()
    mostly = np.array([0.0] * 9 + [1.0])
    assert departures(mostly, mostly + 1e-5, 1e-3).max() <= 1 < departures(mostly, mostly + 1e-3, 1e-3).min()


def test_ranks_forgive_a_scale_and_not_a_sign():
    before = np.linspace(-1, 1, 21)
    assert displacements(before, 5 * before + 3, 0.25).max() == 0
    found = displacements(before, -before, 0.25)
    assert (found > 1).sum() == 16 and found.max() == pytest.approx(4)


# Changes ------------------------------------------------------------------------------------------------------------


@given(seed=SEEDS)
@SETTINGS
def test_the_change_of_auc_is_delongs(seed):
    before, after, member = pair(seed)
    found, expected = change("auc", before, after, member), paired_delong(after, before, member)
    assert found.value == pytest.approx(expected.difference.value, abs=1e-12)
    assert found.spread == pytest.approx((expected.difference.high - expected.difference.value) / 1.959964, rel=1e-4)
    assert 38 <= found.df <= 78
    normal = expected.p_value
    assert found.p_value("both") == pytest.approx(normal, abs=0.01) and found.p_value("both") >= normal - 1e-12


@pytest.mark.parametrize("metric", ["tpr_at_1", "tnr_at_1"])
def test_rates_are_the_tables_and_their_spread_is_the_bootstraps(metric):
    before, after, member = pair(1, 300, 1.0, 1.6)
    found = change(metric, before, after, member, n_resamples=2000)
    rule = partial(tpr_at_fpr, max_fpr=0.01) if metric == "tpr_at_1" else partial(tnr_at_fnr, max_fnr=0.01)

    def rate(scores, rows):
        return rule(exact_roc(scores[rows], member[rows])).value

    every, rng = np.arange(600), np.random.default_rng(0)
    assert (found.before, found.after) == pytest.approx((rate(before, every), rate(after, every)))
    drawn = []
    for _ in range(400):
        rows = np.concatenate([rng.integers(0, 300, 300), rng.integers(300, 600, 300)])
        drawn.append(rate(after, rows) - rate(before, rows))
    assert found.spread == pytest.approx(np.std(drawn), rel=0.15)
    assert found.note.startswith("1 % of 300")


@given(seed=SEEDS, metric=st.sampled_from(["auc", "tpr_at_1", "tnr_at_1"]))
@settings(max_examples=20, deadline=None)
def test_samples_may_come_in_any_order_and_runs_may_be_swapped(seed, metric):
    before, after, member = pair(seed, 120)
    found = change(metric, before, after, member, n_resamples=8000)
    order = np.random.default_rng(seed).permutation(member.size)
    again = change(metric, before[order], after[order], member[order], n_resamples=8000)
    assert (again.value, again.spread) == pytest.approx((found.value, found.spread), rel=1e-9, abs=1e-15)
    if metric == "auc":
        swapped = change(metric, after, before, member)
        assert swapped.p_value("drop", 0.01) == pytest.approx(found.p_value("rise", 0.01), rel=1e-9)
    mirrored = change(metric.translate(str.maketrans("pn", "np")), -before, -after, ~member, n_resamples=8000)
    assert mirrored.before == pytest.approx(found.before)
    assert mirrored.spread == pytest.approx(found.spread, rel=0.2), "other resamples"


@pytest.mark.parametrize("metric", ["auc", "tpr_at_1"])
def test_the_same_ranks_are_no_change(metric):
    before, _, member = pair(2, 150)
    found = change(metric, before, np.exp(before), member)
    assert (found.value, found.spread) == (0, 0)
    assert [found.p_value(way) for way in ("rise", "drop", "both")] == [1, 1, 1]
    assert found.detectable("rise", 0, 0.05) is None


def test_too_few_samples_are_said():
    before, after, member = pair(3, 9)
    assert change("auc", before, after, member) == "9 members: fewer than 10, too few for a test"
    before, after, member = pair(3, 99)
    assert "fewer than 1" in change("tpr_at_1", before, after, member)
    assert "all 10 audit samples are members" in change("auc", before[:10], after[:10], member[:10])
    with pytest.raises(ValueError, match="cannot be gated"):
        change("asr", before, after, member)


def test_perfect_separation_is_not_taken_for_certainty():
    before, after, member = pair(4, 30)
    perfect, other = member + before / 100, member - after / 100
    stays = change("auc", perfect, other, member)
    assert stays.value == 0 and stays.spread > 0.01 and stays.p_value("rise") >= 0.5 and "misranked" in stays.note
    assert stays.detectable("drop", 0, 0.05) > 0.03
    one_pair = perfect.copy()
    one_pair[0] = -1
    assert change("auc", perfect, one_pair, member).p_value("drop") > 0.05
    assert change("auc", before, perfect, member).p_value("rise") < 1e-4
    assert change("auc", np.zeros(60), perfect, member).p_value("rise") < 1e-4
    never, always = np.where(member, -5, before), np.where(member, 50, after)
    assert change("tpr_at_1", *(np.tile(s, 5) for s in (never, always, member))).p_value("rise") < 1e-4
    assert change("tpr_at_1", *(np.tile(s, 5) for s in (never, 2 * before - 9 * member, member))).spread > 0


# Families -----------------------------------------------------------------------------------------------------------

VALUES = st.floats(-0.3, 0.3)


@given(value=VALUES, margin=st.floats(0, 0.2), more=st.floats(0, 0.2))
@SETTINGS
def test_directions_mirror_each_other_and_a_wider_margin_forgives_more(value, margin, more):
    one, other = a_change(value), a_change(-value)
    for a, b in (("rise", "drop"), ("drop", "rise"), ("both", "both")):
        assert one.p_value(a, margin) == pytest.approx(other.p_value(b, margin))
        assert one.p_value(a, margin + more) >= one.p_value(a, margin) - 1e-12
    assert one.p_value("both", margin) >= min(one.p_value("rise", margin), one.p_value("drop", margin)) - 1e-12
    assert one.p_value("rise", max(0.0, value)) >= 0.5 - 1e-12, "a change by the margin is no evidence"


@given(values=st.lists(VALUES, min_size=1, max_size=8), extra=VALUES)
@SETTINGS
def test_a_larger_family_finds_no_more(values, extra):
    small = judged_together([a_change(v) for v in values])
    large = judged_together([a_change(v) for v in [*values, extra]])
    for a, b in zip(small, large, strict=False):
        assert b.adjusted >= a.adjusted >= a.p_value
        assert b.found <= a.found
        assert (b.detectable or 1) >= (a.detectable or 0)


def test_what_is_detectable():
    one = a_change(0.0, df=math.inf, pieces=1e12, n_members=2000, n_nonmembers=2000, spread=0.004)
    assert one.detectable("rise", 0, 0.05) == pytest.approx((1.645 + 0.842) * 0.004, rel=0.05)
    assert one.detectable("rise", 0.02, 0.05) == pytest.approx(0.02 + (1.645 + 0.842) * 0.004, rel=0.05)
    assert one.detectable("both", 0, 0.05) > one.detectable("rise", 0, 0.05)
    assert a_change(0.0, spread=0.3).detectable("rise", 0, 0.05) is None
    assert a_change(0.0, pieces=4.0).detectable("rise", 0, 0.05) > a_change(0.0).detectable("rise", 0, 0.05)


def test_no_change_passes_and_the_detectable_one_is_found():
    """In small what `benchmarks/gate/study.py` shows in full."""
    alarms = found = 0
    for seed in range(300):
        before, same, member = pair(seed, 60)
        _, null, _ = pair(seed, 60, 0.5, 0.5)
        tests = judged_together([change("auc", before, null, member)])
        alarms += tests[0].found
        size = tests[0].detectable
        raised = same + member * (math.sqrt(2) * _quantile(_auc(0.5) + size) - 0.5)
        found += judged_together([change("auc", before, raised, member)])[0].found
    assert 3 <= alarms <= 27  # 15 expected
    assert found >= 240


def _auc(shift):
    return 0.5 * math.erfc(-shift / 2)


def _quantile(p):
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)
