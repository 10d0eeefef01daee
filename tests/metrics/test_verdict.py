"""Verdicts: what each word needs, that every baseline counts, and how often a null attack is said to clear."""

from __future__ import annotations

import numpy as np
import pytest

from mia_bench.metrics import Estimate, Metric, paired_delong
from mia_bench.metrics.delong import PairedDifference
from mia_bench.metrics.inputs import BoolArray, FloatArray
from mia_bench.metrics.roc import asr_oracle, auc, exact_roc, tpr_at_fpr
from mia_bench.metrics.verdict import (
    CHANCE,
    Case,
    auc_difference,
    chance_of,
    decisions,
    towards,
    unpaired,
    verdicts,
)


def metric(low: float, value: float, high: float, status: str = "ok") -> Metric:
    reason = None if status == "ok" else "few"
    return Metric(value=value, low=low, high=high, level=0.95, status=status, reason=reason)  # type: ignore[arg-type]


NOTHING = Metric(value=None, low=None, high=None, level=0.95, status="undefined", reason="no members")


def gap(value: float, p_value: float | None) -> PairedDifference:
    if p_value is None:
        return PairedDifference(Estimate.undefined("no spread", 0.95), None)
    return PairedDifference(Estimate(value, value - 0.1, value + 0.1, 0.95, "x"), p_value)


SURE, UNSURE = gap(0.3, 1e-6), gap(0.02, 0.4)
HIGH = metric(0.75, 0.8, 0.85)


@pytest.mark.parametrize(
    ("case", "word"),
    [
        (Case(HIGH, 0.5, 99, {CHANCE: SURE, "a": SURE, "b": SURE}), "clears blind"),
        (Case(HIGH, 0.5, 99, {CHANCE: SURE, "a": SURE, "b": UNSURE}), "does not clear blind"),
        (Case(HIGH, 0.5, 99, {CHANCE: UNSURE, "a": SURE}), "does not clear blind"),
        (Case(HIGH, 0.5, 99, {CHANCE: SURE, "a": gap(-0.3, 1e-6)}), "does not clear blind"),
        (Case(metric(0.2, 0.3, 0.4), 0.5, 99, {CHANCE: gap(-0.2, 1e-6), "a": SURE}), "does not clear blind"),
        (Case(metric(0.45, 0.52, 0.6), 0.5, 99, {CHANCE: SURE, "a": SURE}), "at chance"),
        (Case(metric(0.45, 0.52, 0.6), 0.5, 99, {}, "none"), "at chance"),
        (Case(HIGH, 0.5, 9, {CHANCE: SURE, "a": SURE}), "too few samples"),
        (Case(metric(0.75, 0.8, 0.85, "flagged"), 0.5, 99, {CHANCE: SURE, "a": SURE}), "too few samples"),
        (Case(NOTHING, 0.5, 99), "too few samples"),
        (Case(HIGH, 0.5, 99, {CHANCE: SURE}), "no blind baseline"),
        (Case(HIGH, 0.5, 99, {CHANCE: SURE, "a": SURE}, "b: too few groups"), "no blind baseline"),
        (Case(HIGH, 0.5, 99, {CHANCE: SURE, "a": UNSURE}, "b: too few groups"), "does not clear blind"),
        (Case(HIGH, 0.5, 99, {CHANCE: SURE, "a": gap(0, None), "b": SURE}), "no blind baseline"),
    ],
)
def test_what_each_word_needs(case: Case, word: str) -> None:
    found = verdicts({"one": case})["one"]
    assert found.verdict == word
    if word == "no blind baseline":
        assert found.reason
    if word == "clears blind":
        assert found.blind is not None and found.blind.against in ("a", "b") and found.adjusted == found.p_value


def test_below_chance_without_any_baseline_is_not_held_against_one() -> None:
    found = verdicts({"one": Case(metric(0.2, 0.3, 0.4), 0.5, 99, {CHANCE: gap(-0.2, 1e-6)})})["one"]
    assert (found.verdict, found.reason) == ("no blind baseline", "below chance: members score lower")


def test_p_values_are_adjusted_over_the_attacks_of_a_table() -> None:
    case = Case(HIGH, 0.5, 99, {CHANCE: SURE, "a": gap(0.1, 0.01)})
    assert verdicts({"one": case})["one"].verdict == "clears blind"
    many = verdicts({str(i): case for i in range(10)})
    assert {v.verdict for v in many.values()} == {"does not clear blind"}
    assert many["0"].p_value == 0.01 and many["0"].adjusted == pytest.approx(0.1)


def test_the_best_blind_is_the_one_that_is_nearest() -> None:
    found = verdicts({"x": Case(HIGH, 0.5, 99, {CHANCE: SURE, "a": gap(0.3, 1e-6), "b": gap(0.1, 1e-3)})})["x"]
    assert found.blind is not None and (found.blind.against, found.blind.value) == ("b", 0.1)
    assert found.p_value == 1e-3


def draw(rng: np.random.Generator, n: int, shift: float, k: int = 2) -> tuple[list[FloatArray], BoolArray]:
    """k lists that share a part."""
    member = np.arange(2 * n) < n
    shared = rng.normal(size=2 * n)
    return [0.6 * shared + 0.8 * rng.normal(size=2 * n) + shift * member for _ in range(k)], member


def test_chance_of_a_tpr_is_what_scores_without_knowledge_have() -> None:
    rng, n = np.random.default_rng(0), 1000
    member = np.arange(2 * n) < n
    found = [tpr_at_fpr(exact_roc(rng.normal(size=2 * n), member), 0.01).value for _ in range(2000)]
    assert np.mean(found) == pytest.approx(chance_of("tpr_at_1", n), abs=3 * np.std(found) / 2000**0.5)
    assert chance_of("auc", n) == 0.5


def test_where_delong_stands_alone_nothing_else_is_done() -> None:
    (a, b), member = draw(np.random.default_rng(1), 200, 1)
    assert auc_difference(a, b, member) == paired_delong(a, b, member)


@pytest.mark.parametrize("n", [10, 50, 400])
def test_perfect_separation_is_told_from_chance_and_from_weak_scores(n: int) -> None:
    (a, b), member = draw(np.random.default_rng(2), n, 0)
    perfect = a + 99 * member
    for other in (np.zeros(2 * n), b):
        found = auc_difference(perfect, other, member)
        assert found.p_value is not None and found.p_value < 0.01 and (found.difference.low or 0) > 0
    again = auc_difference(perfect, b + 99 * member, member)
    assert again.difference.value == 0 and again.p_value == 1, "two perfect scores are not told apart"
    nothing = auc_difference(np.zeros(2 * n), np.zeros(2 * n), member)
    assert (nothing.difference.value, nothing.p_value) == (0, 1)


def test_two_intervals_are_wider_than_pairs_that_agree() -> None:
    (a, b), member = draw(np.random.default_rng(3), 300, 1)
    from mia_bench.metrics import auc_interval

    apart, together = unpaired(auc_interval(a, member), auc_interval(b, member)), paired_delong(a, b, member)
    assert apart.difference.value == pytest.approx(together.difference.value)
    widths = [(d.difference.high or 0) - (d.difference.low or 0) for d in (apart, together)]
    assert widths[0] > 1.1 * widths[1]


def test_decisions_out_of_fold_have_no_excess() -> None:
    rng = np.random.default_rng(4)
    honest, oracle = [], []
    for _ in range(300):
        (a,), member = draw(rng, 30, 0, 1)
        honest.append(auc(decisions(a, member), member))
        oracle.append(asr_oracle(exact_roc(a, member)).value)
    assert np.mean(honest) < 0.51 < 0.55 < np.mean(oracle)
    (a,), member = draw(rng, 300, 3, 1)
    assert auc(decisions(a, member), member) == pytest.approx(asr_oracle(exact_roc(a, member)).value, abs=0.02)


@pytest.mark.parametrize(("n", "shift"), [(20, 0.0), (100, 0.0), (100, 1.5), (50, 4.0)])
def test_an_attack_like_blind_seldom_clears_it(n: int, shift: float) -> None:
    rng, repeats = np.random.default_rng(5), 400
    wrong = 0
    for _ in range(repeats):
        (a, b), member = draw(rng, n, shift)
        wrong += towards(auc_difference(a, b, member)) < 0.05
    assert wrong / repeats < 0.05  # nominal: 0.025, being one of two sides
