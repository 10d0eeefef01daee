"""Rates at thresholds that were chosen elsewhere."""

import numpy as np
import pytest

from mia_bench.metrics import clopper_pearson, evaluate, exact_roc, tpr_at_fpr, transferred
from mia_bench.metrics.models import Evaluation
from mia_bench.metrics.transfer import holds


def scores(n=1000, shift=1.0, moved=0.0, seed=0):
    rng = np.random.default_rng(seed)
    member = np.arange(2 * n) < n
    return rng.normal(size=2 * n) + shift * member + moved, member


def test_the_threshold_is_chosen_on_one_set_and_its_rates_are_counted_on_the_other():
    calibration, (values, member) = scores(seed=1), scores(seed=2)
    one, tenth = transferred(values, member, calibration)
    point = tpr_at_fpr(exact_roc(*calibration), 0.01)
    below = max(v for v in calibration[0] if v < point.threshold)
    assert one.tpr.threshold == pytest.approx((below + point.threshold) / 2), "half way to the next score"
    called = values >= one.tpr.threshold
    for metric, kind in ((one.tpr, member), (one.fpr, ~member)):
        assert metric.value == called[kind].mean()
        assert (metric.low, metric.high) == pytest.approx(clopper_pearson(int(called[kind].sum()), 1000))
        assert metric.count == called[~member].sum() and metric.realised == called[~member].mean()
    assert (one.max_fpr, one.n_calibration, one.chosen_fpr) == (0.01, 1000, point.realised)
    assert one.tpr.status == "ok" and tenth.tpr.status == "flagged" and "calibration non-members" in tenth.tpr.reason


def test_on_the_set_itself_it_is_the_oracle():
    values, member = scores()
    (one, _), found = transferred(values, member, (values, member)), evaluate(values, member)
    assert (one.tpr.value, one.fpr.value) == (found.tpr_at_1.value, found.tpr_at_1.realised)


def test_calibration_non_members_bound_what_can_be_said():
    values, member = scores()
    small = scores(n=99)
    one, _ = transferred(values, member, small)
    assert one.tpr.value is None and one.tpr.status == one.fpr.status == "undefined"
    assert "99 calibration non-members" in one.tpr.reason and one.holds is None
    assert transferred(values, member, scores(n=100))[0].tpr.status == "flagged"
    unbalanced = np.concatenate([small[0], scores(n=950)[0][950:]]), np.arange(99 + 99 + 950) < 99
    assert transferred(values, member, unbalanced)[0].tpr.status == "ok", "members of it do not count"


def test_without_a_calibration_set_the_reason_is_told():
    values, member = scores(n=20)
    for one in transferred(values, member, None, reason="nobody knows"):
        assert one.tpr.value is None and one.tpr.reason == one.fpr.reason == "nobody knows"
    only = transferred(values, member, (values[member], member[member]))[0]
    assert only.tpr.reason == "the calibration set holds no non-members"
    missing = transferred(values[member], member[member], (values, member))[0]
    assert missing.tpr.value is None and "are members: nothing to compare" in missing.tpr.reason


@pytest.mark.parametrize(("moved", "verdict"), [(0.0, "yes"), (0.8, "too high"), (-0.8, "too low")])
def test_a_shift_shows_in_the_false_positives(moved, verdict):
    values, member = scores(seed=3, moved=moved)
    assert transferred(values, member, scores(n=3000, seed=4))[0].holds == verdict


def test_an_unsteady_threshold_is_seldom_called_a_shift():
    """Sets of one kind, few calibration samples: called one in at most the chance that is allowed on each side."""
    rng = np.random.default_rng(0)
    called = {"too high": 0, "too low": 0, "yes": 0}
    repeats = 1500
    for _ in range(repeats):
        k, n, m = 2, 200, 500
        threshold = np.sort(rng.random(n))[-k]  # k of n pass it
        called[holds(int((rng.random(m) >= threshold).sum()), m, k, n)] += 1
    assert called["too high"] / repeats < 0.04 and called["too low"] / repeats < 0.04
    assert holds(30, 500, 2, 200) == "too high"


def test_nothing_called_a_member_is_no_shift():
    values, member = scores(n=200)
    backwards = -5.0 * member + np.linspace(0, 1, 400)
    one = transferred(values, member, (backwards, member))[0]
    assert (one.tpr.value, one.fpr.value, one.tpr.threshold, one.holds) == (0.0, 0.0, np.inf, "yes")


def test_it_survives_json_and_older_records_lack_it():
    values, member = scores(n=150)
    found = evaluate(values, member).model_copy(update={"transferred": transferred(values, member, (values, member))})
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    older = found.model_dump(mode="json")
    del older["transferred"]
    assert Evaluation.model_validate(older).transferred == ()
