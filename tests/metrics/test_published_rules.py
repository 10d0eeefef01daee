"""Published rules: against what those programs print for made-up scores, and against each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mia_bench.metrics import exact_roc, roc_auc, tnr_at_fnr, tpr_at_fpr
from mia_bench.metrics.published_rules import RULES, TAILS, by_rule, copymark_carried, labelled

GOLDEN = Path(__file__).parents[1] / "parity" / "fixtures" / "golden_metrics.npz"
EXACT = 1e-12


@pytest.fixture(params=["normal", "heavy", "skew"])
def case(request):
    """Scores, labels, and what each program prints for them; lower = member in the file."""
    with np.load(GOLDEN) as golden:
        found = {k.removeprefix(f"{request.param}_"): golden[k] for k in golden.files if k.startswith(request.param)}
    members, others = found["member"].astype(float), found["nonmember"].astype(float)
    scores = -np.concatenate([members, others])
    return request.param, scores, np.arange(scores.size) < members.size, found


def test_what_the_programs_print(case) -> None:
    """AUC, ASR, TPR at 1 % of the released evaluators; float32 there, hence 1e-7."""
    name, scores, member, printed = case
    found = by_rule(scores, member, (scores, member))
    secmi, clid, pfami, copymark = (found[name] for name in ("SecMI", "CLiD", "PFAMI", "CopyMark"))
    assert [secmi.auc, secmi.asr, secmi.tails[0.01].value] == pytest.approx(printed["secmi"], abs=1e-7)
    assert [pfami.auc, pfami.asr, pfami.tails[0.01].value] == pytest.approx(printed["miagen"], abs=1e-7)
    assert [clid.auc, clid.asr, clid.tails[0.01].value] == pytest.approx(printed["clid"][:3], abs=1e-7)
    assert copymark.tails[0.01].value == pytest.approx(printed["copymark"][1], abs=1e-7)
    # Rounding decides whether its grid has the highest score (here on `heavy`), which is worth one non-member of area.
    assert printed["copymark"][0] - copymark.auc == pytest.approx(0 if name != "heavy" else 1 / 300, abs=1e-7)


@st.composite
def scored(draw):
    """Scores of a few members and non-members, ties likely."""
    n_pos, n_neg = draw(st.integers(1, 150)), draw(st.integers(1, 150))
    values = st.one_of(st.integers(-4, 4).map(float), st.floats(-100, 100, width=32))
    scores = draw(st.lists(values, min_size=n_pos + n_neg, max_size=n_pos + n_neg))
    return np.array(scores), np.arange(n_pos + n_neg) < n_pos


@settings(max_examples=40, deadline=None)
@given(scored())
def test_how_the_rules_relate(of) -> None:
    scores, member = of
    roc, found = exact_roc(scores, member), by_rule(scores, member)
    for rate in TAILS:
        ours, other = tpr_at_fpr(roc, rate), tnr_at_fnr(roc, rate)
        tails = {name: one.tails[rate] for name, one in found.items()}
        # Ours is the best of all points within the rate; a subset of them can be no better.
        assert tails["PIA"].value <= ours.value + EXACT and tails["PIA"].error < rate
        assert tails["CDI"].error >= rate
        if tails["CDI"].error > rate:  # of points that meet it exactly CDI takes the first, ours is the best
            assert tails["CDI"].value >= ours.value - EXACT
        if tails["CopyMark"].error <= rate:
            assert tails["CopyMark"].value <= ours.value + EXACT
        if tails["SecMI"].error <= rate:
            assert tails["SecMI"].value <= ours.value + EXACT
        # The other tail: CLiD's point is the first that reaches the rate, ours the last that keeps it.
        assert tails["CLiD"].error >= rate
        if tails["CLiD"].error > rate:
            assert tails["CLiD"].value >= other.value - EXACT
        swapped = RULES["CDI"](labelled(-scores, ~member), None)
        assert swapped.tails[rate] == tails["CLiD"], "CLiD's is CDI's with the classes swapped"
        if tails["PFAMI"].error <= rate:
            assert tails["PFAMI"].value <= other.value + EXACT
    for name in ("PIA", "PFAMI", "CLiD", "CDI"):
        assert found[name].auc == roc_auc(roc)
    best = ((roc.tp + roc.n_neg - roc.fp) / member.size).max()
    assert found["SecMI"].asr <= best + EXACT
    assert found["PIA"].asr is found["CDI"].asr is found["CopyMark"].asr is found["CLiD"].asr is None


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 2))
def test_areas_of_grids_are_near_the_exact_one(seed: int, shift: float) -> None:
    """Of scores without outliers; the area beyond a grid's ends is a few samples wide."""
    rng = np.random.default_rng(seed)
    member = np.arange(2000) < 1000
    scores = rng.uniform(size=2000) + 0.3 * shift * member
    exact, found = roc_auc(exact_roc(scores, member)), by_rule(scores, member)
    assert found["SecMI"].auc == pytest.approx(exact, abs=0.01)
    assert found["CopyMark"].auc == pytest.approx(exact, abs=0.01)


def test_heavy_tails_leave_a_grid_without_steps_where_it_matters() -> None:
    """One outlier stretches the grid, so that all others fall between two steps."""
    scores = np.concatenate([np.linspace(1, 2, 200), np.linspace(0, 1, 200), [-1e9]])
    member = np.arange(401) < 200
    assert tpr_at_fpr(exact_roc(scores, member), 0.01).value == 1
    assert by_rule(scores, member)["CopyMark"].tails[0.01].value < 0.05


def test_a_point_that_meets_the_rate_is_passed_over_by_pia() -> None:
    member = np.arange(200) < 100
    scores = np.concatenate([np.full(50, 3.0), np.full(50, 1.0), [2.0, 1.2], np.zeros(98)])
    scores[:50] += np.linspace(0, 0.5, 50)
    scores[50:60] = 1.5
    found = by_rule(scores, member)
    assert tpr_at_fpr(exact_roc(scores, member), 0.01).value == 0.6
    assert (found["PIA"].tails[0.01].value, found["CDI"].tails[0.01].value) == (0.5, 0.5)
    assert found["CDI"].tails[0.01].error == 0.01 and found["PIA"].tails[0.01].error == 0


def test_thresholds_are_carried_over() -> None:
    chosen = labelled([5.0, 4.0, 3.0, 2.0, 1.0, 0.0], [True, True, False, True, False, False])
    applied = labelled([4.5, 3.9, 3.9, 0.0], [True, True, False, False])
    at = copymark_carried(chosen, applied, 0.01)
    assert (at.tp, at.fp) == (1, 0), "the strictest step that holds both members is at 4"
    found = by_rule(applied.scores, applied.member, (chosen.scores, chosen.member))
    assert found["CopyMark"].carried[0.01] == at
    assert found["CLiD"].asr == 0.75


def test_refusals_and_docstrings() -> None:
    with pytest.raises(ValueError, match="infinite"):
        by_rule([np.inf, 0.0], [True, False])
    with pytest.raises(ValueError, match="all 2 audit samples"):
        by_rule([1.0, 0.0], [True, True])
    assert all(rule.__doc__ for rule in RULES.values())
