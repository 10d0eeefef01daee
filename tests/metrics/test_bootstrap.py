"""Stratified bootstrap: against a plain loop, its coverage, reproducibility and memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.stats import norm

from mia_bench.metrics import (
    Estimate,
    Resamples,
    asr_at,
    asr_at_interval,
    asr_oracle,
    asr_oracle_interval,
    auc,
    bootstrap,
    bootstrap_difference,
    clopper_pearson,
    exact_roc,
    paired_tprs,
    resample,
    tnr_at_fnr,
    tnr_interval,
    tpr_at_fpr,
    tpr_interval,
)
from mia_bench.metrics.inputs import BoolArray, FloatArray


def draw(
    rng: np.random.Generator, n_pos: int, n_neg: int, shift: float, digits: int = 9
) -> tuple[FloatArray, BoolArray]:
    member = np.arange(n_pos + n_neg) < n_pos
    return np.array(rng.normal(size=member.size) + shift * member).round(digits), member


def holds(estimate: Estimate, truth: float) -> bool:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low <= truth <= estimate.high


def rows(of: Resamples) -> list[FloatArray]:
    return [of.auc, of.asr_oracle, *of.tpr.values(), *of.tnr.values()]


@pytest.mark.parametrize("digits", [0, 9])
def test_resamples_are_distributed_as_those_of_a_plain_loop(digits: int) -> None:
    rng = np.random.default_rng(0)
    scores, member = draw(rng, 60, 90, 1.0, digits)
    fast = resample(exact_roc(scores, member), (0.05, 0.2), n_resamples=3000)
    slow: dict[str, list[float]] = {"auc": [], "asr": [], "tpr": [], "tnr": []}
    pos, neg = scores[member], scores[~member]
    for _ in range(1000):
        again = np.concatenate([rng.choice(pos, 60), rng.choice(neg, 90)])
        roc = exact_roc(again, member)
        slow["auc"].append(auc(again, member))
        slow["asr"].append(asr_oracle(roc).value)
        slow["tpr"].append(tpr_at_fpr(roc, 0.05).value)
        slow["tnr"].append(tnr_at_fnr(roc, 0.2).value)
    pairs = {"auc": fast.auc, "asr": fast.asr_oracle, "tpr": fast.tpr[0.05], "tnr": fast.tnr[0.2]}
    for name, values in pairs.items():
        standard_error = np.std(slow[name]) / np.sqrt(1000)
        assert values.mean() == pytest.approx(np.mean(slow[name]), abs=4.5 * standard_error), name
        assert values.std() == pytest.approx(np.std(slow[name]), rel=0.15), name


def test_one_seed_one_result_whatever_the_order_the_chunks_or_the_scale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    scores, member = draw(rng, 50, 70, 0.7, 1)
    first = resample(exact_roc(scores, member), seed=3, n_resamples=101)
    order = rng.permutation(member.size)
    monkeypatch.setattr(bootstrap, "CELLS_PER_CHUNK", 7 * member.size)
    second = resample(exact_roc(np.exp(scores[order]), member[order]), seed=3, n_resamples=101)
    other = resample(exact_roc(scores, member), seed=4, n_resamples=101)
    assert all(np.array_equal(a, b) for a, b in zip(rows(first), rows(second), strict=True))
    assert not np.array_equal(first.auc, other.auc)
    assert (first.seed, first.n_resamples) == (3, 101)


def test_memory_stays_bounded() -> None:
    scores, member = draw(np.random.default_rng(2), 50_000, 50_000, 0.3)
    roc = exact_roc(scores, member)
    tracemalloc.start()
    try:
        resample(roc, n_resamples=40)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 60e6


def test_percentile_intervals_are_the_quantiles_and_hold_the_estimate() -> None:
    scores, member = draw(np.random.default_rng(3), 300, 400, 1.0)
    roc = exact_roc(scores, member)
    draws = resample(roc, (0.05,), n_resamples=500)
    for interval, values, value in (
        (tpr_interval(roc, draws, 0.05, 0.9), draws.tpr[0.05], tpr_at_fpr(roc, 0.05).value),
        (tnr_interval(roc, draws, 0.05, 0.9), draws.tnr[0.05], tnr_at_fnr(roc, 0.05).value),
    ):
        assert interval.method == "bootstrap-percentile"
        assert interval.value == value
        assert (interval.low, interval.high) == pytest.approx(np.quantile(values, [0.05, 0.95]))
        assert holds(interval, value)


def test_at_zero_or_all_the_proportion_is_exact() -> None:
    member = np.arange(60) < 20
    upside_down = exact_roc(np.where(member, 0.0, 1.0), member)
    draws = resample(upside_down, n_resamples=50)
    none = tpr_interval(upside_down, draws, 0.01)
    assert (none.value, none.method, (none.low, none.high)) == (
        0.0,
        "clopper-pearson",
        clopper_pearson(0, 20),
    )
    perfect = exact_roc(member.astype(float), member)
    draws = resample(perfect, n_resamples=50)
    every = tnr_interval(perfect, draws, 0.01)
    assert (every.value, every.method) == (1.0, "clopper-pearson")
    assert (every.low, every.high) == clopper_pearson(40, 40)
    oracle = asr_oracle_interval(perfect, draws)
    assert (oracle.value, oracle.method, oracle.high) == (1.0, "clopper-pearson", 1.0)
    assert oracle.low is not None
    assert 0.85 < oracle.low < 0.95


def test_tpr_at_fpr_is_covered() -> None:
    """94 % of 200 sets in a longer run at these sizes; ten false positives are allowed."""
    rng = np.random.default_rng(4)
    truth = float(norm.sf(norm.isf(0.01) - 1.19))
    held = 0
    for _ in range(100):
        roc = exact_roc(*draw(rng, 1000, 1000, 1.19))
        held += holds(tpr_interval(roc, resample(roc, (0.01,), n_resamples=200), 0.01), truth)
    assert held >= 87


@pytest.mark.parametrize(("shift", "at_least"), [(0.0, 0.8), (0.36, 0.8), (1.19, 0.84)])
def test_asr_oracle_covers_the_best_possible_accuracy(shift: float, at_least: float) -> None:
    """The percentile interval holds it for 4 %, 73 % and 84 % of such sets: it counts the optimism twice."""
    rng = np.random.default_rng(5)
    truth = float(norm.cdf(shift / 2))
    held = percentile = 0
    for _ in range(120):
        roc = exact_roc(*draw(rng, 300, 300, shift))
        draws = resample(roc, (), n_resamples=200)
        held += holds(asr_oracle_interval(roc, draws), truth)
        low, high = np.quantile(draws.asr_oracle, [0.025, 0.975])
        percentile += bool(low <= truth <= high)
    assert held / 120 >= at_least
    assert held > percentile


def test_asr_oracle_interval_is_reflected_cut_at_chance_and_holds_the_estimate() -> None:
    scores, member = draw(np.random.default_rng(6), 200, 200, 0.5)
    roc = exact_roc(scores, member)
    draws = resample(roc, n_resamples=400)
    found = asr_oracle_interval(roc, draws)
    value = asr_oracle(roc).value
    few, many = np.quantile(draws.asr_oracle, [0.025, 0.975])
    assert found.method == "bootstrap-basic"
    assert (found.low, found.high) == pytest.approx((2 * value - many, max(value, 2 * value - few)))
    upside_down = exact_roc(-5.0 * member, member)
    worst = asr_oracle_interval(upside_down, resample(upside_down, n_resamples=50))
    assert (worst.value, worst.low) == (0.5, 0.5)


def test_asr_at_a_fixed_threshold() -> None:
    rng = np.random.default_rng(7)
    scores, member = draw(rng, 150, 300, 1.0)
    found = asr_at_interval(scores, member, 0.5, seed=1, n_resamples=500)
    assert found == asr_at_interval(scores, member, 0.5, seed=1, n_resamples=500)
    assert found != asr_at_interval(scores, member, 0.5, seed=2, n_resamples=500)
    assert found.value is not None
    assert (found.value, found.method) == (asr_at(scores, member, 0.5), "bootstrap-percentile")
    truth = float(norm.cdf(0.5))
    estimates = [asr_at_interval(*draw(rng, 100, 200, 1.0), 0.5, n_resamples=300) for _ in range(200)]
    assert np.mean([holds(one, truth) for one in estimates]) >= 0.91
    nobody = asr_at_interval(scores, member, np.inf)
    assert (nobody.value, nobody.method) == (0.5, "clopper-pearson")
    assert holds(nobody, 0.505)
    lowest_member = scores[member].min()  # one rate at its end, the other not
    assert asr_at_interval(scores, member, lowest_member).method == "clopper-pearson"
    for seed in range(20):  # a single resample lies anywhere; the interval still holds its estimate
        assert holds(asr_at_interval(scores, member, 0.5, seed=seed, n_resamples=1), found.value)
    missing = asr_at_interval(scores[member], member[member], 0.5)
    assert (missing.value, missing.reason) == (
        None,
        "all 150 audit samples are members: nothing to compare with",
    )


def test_no_resamples_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one resample"):
        resample(exact_roc([0.0, 1.0], [False, True]), n_resamples=0)


# Several scores in the same resamples --------------------------------------------------------------------------


def slow_tprs(scores: list[FloatArray], member: BoolArray, rate: float, seed: int, n_resamples: int) -> FloatArray:
    """The same by the exact curve of each resample."""
    rngs = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(2)]
    neg, pos = np.flatnonzero(~member), np.flatnonzero(member)
    neg_drawn, pos_drawn = (
        rng.integers(0, len(s), (n_resamples, len(s))) for rng, s in zip(rngs, (neg, pos), strict=True)
    )
    out = np.empty((len(scores), n_resamples))
    for r in range(n_resamples):
        rows = np.r_[neg[neg_drawn[r]], pos[pos_drawn[r]]]
        for k, values in enumerate(scores):
            out[k, r] = tpr_at_fpr(exact_roc(values[rows], member[rows]), rate).value
    return out


@pytest.mark.parametrize("n", [30, 200])
def test_paired_tprs_are_those_of_the_resampled_curves(n: int) -> None:
    rng = np.random.default_rng(n)
    member = rng.permutation(np.arange(2 * n) < n)
    plain = rng.normal(size=2 * n) + member
    scores = [
        plain,
        plain.round(),
        np.where(member, np.inf, plain),
        np.zeros(2 * n),
        np.where(plain > 0, plain, -np.inf),
    ]
    found = paired_tprs(scores, member, (0.05, 0.3, 1.0), seed=3, n_resamples=40)
    for rate in found:
        assert np.array_equal(found[rate], slow_tprs(scores, member, rate, 3, 40)), rate


def test_a_difference_has_a_p_value_of_both_tails() -> None:
    drawn = np.random.default_rng(0).normal(0.3, 0.1, 1999)
    found = bootstrap_difference(0.3, drawn)
    assert found.difference.low == pytest.approx(0.1, abs=0.02) and found.difference.high == pytest.approx(
        0.5, abs=0.02
    )
    assert found.p_value is not None and found.p_value < 0.01
    assert bootstrap_difference(-0.3, -drawn).p_value == found.p_value
    assert bootstrap_difference(0.0, np.zeros(99)).p_value == 1
    assert bootstrap_difference(1.0, np.ones(99)).p_value == 0.02
