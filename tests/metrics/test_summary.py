"""`evaluate`: standing by sample size, missing classes, invariances; and the blind baselines to clear."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mia_bench.metrics import (
    Evaluation,
    asr_at,
    asr_oracle,
    auc,
    best_threshold,
    evaluate,
    exact_roc,
    tail_status,
    tnr_at_fnr,
    tpr_at_fpr,
)
from mia_bench.metrics.inputs import BoolArray, FloatArray

METRICS = ("auc", "tpr_at_1", "tpr_at_01", "tnr_at_1", "tnr_at_01", "asr_oracle", "asr_calibrated")

# (samples of the class that errs, at 1 %, at 0.1 %); the second word says whether rows may be ranked.
TABLE = [
    (99, "undefined", "undefined"),
    (100, "flagged", "undefined"),
    (999, "flagged", "undefined"),
    (1000, "ok", "flagged"),
    (9999, "ok", "flagged"),
    (10_000, "ok rankable", "ok"),
    (99_999, "ok rankable", "ok"),
    (100_000, "ok rankable", "ok rankable"),
]


def normal(n_pos: int, n_neg: int, shift: float = 1.0, seed: int = 0) -> tuple[FloatArray, BoolArray]:
    member = np.arange(n_pos + n_neg) < n_pos
    return np.random.default_rng(seed).normal(size=member.size) + shift * member, member


def without_thresholds(found: Evaluation) -> dict[str, Any]:
    record = found.model_dump()
    for name in METRICS:
        record[name].pop("threshold")
    return record


@pytest.mark.parametrize(("n", "at_1", "at_01"), TABLE)
def test_standing_follows_the_table(n: int, at_1: str, at_01: str) -> None:
    for rate, expected in ((0.01, at_1), (0.001, at_01)):
        status, rankable, reason = tail_status(rate, n)
        assert status + " rankable" * rankable == expected
        assert (reason is None) == (status == "ok")
        assert reason is None or f"of {n} non-members" in reason


@pytest.mark.parametrize(("n", "at_1", "at_01"), [row for row in TABLE if row[0] <= 10_000])
def test_each_tail_stands_by_the_class_that_errs(n: int, at_1: str, at_01: str) -> None:
    found = evaluate(*normal(40, n), n_resamples=5)
    standing = [m.status + " rankable" * m.rankable for m in (found.tpr_at_1, found.tpr_at_01)]
    assert standing == [at_1, at_01]
    assert (found.tnr_at_1.status, found.tnr_at_01.status) == ("undefined", "undefined")
    assert "of 40 members" in str(found.tnr_at_1.reason)
    mirrored = evaluate(*normal(n, 40), n_resamples=5)
    standing = [m.status + " rankable" * m.rankable for m in (mirrored.tnr_at_1, mirrored.tnr_at_01)]
    assert standing == [at_1, at_01]
    assert (mirrored.tpr_at_1.status, mirrored.tpr_at_01.status) == ("undefined", "undefined")


def test_undefined_is_null_with_a_reason_and_nothing_else() -> None:
    found = evaluate(*normal(500, 50), n_resamples=20).tpr_at_1
    assert found.reason == "1 % of 50 non-members is 0.5 errors: fewer than 1, so no threshold has that error rate"
    assert (found.value, found.low, found.high, found.realised, found.count, found.threshold) == (None,) * 6


def test_the_record_holds_what_the_functions_say() -> None:
    scores, member = normal(1200, 1500)
    threshold = best_threshold(*normal(300, 300, seed=1))
    found = evaluate(scores, member, calibration_threshold=threshold, seed=5, n_resamples=200, level=0.9)
    roc = exact_roc(scores, member)
    assert (found.n_members, found.n_nonmembers) == (1200, 1500)
    assert (found.bootstrap_seed, found.bootstrap_resamples) == (5, 200)
    assert found.auc.value == pytest.approx(auc(scores, member), abs=1e-13)
    pairs = [
        (found.tpr_at_1, tpr_at_fpr(roc, 0.01)),
        (found.tpr_at_01, tpr_at_fpr(roc, 0.001)),
        (found.tnr_at_1, tnr_at_fnr(roc, 0.01)),
        (found.tnr_at_01, tnr_at_fnr(roc, 0.001)),
        (found.asr_oracle, asr_oracle(roc)),
    ]
    for metric, point in pairs:
        assert (metric.value, metric.realised) == (point.value, point.realised)
        assert (metric.count, metric.threshold) == (point.count, point.threshold)
    assert found.asr_calibrated.value == asr_at(scores, member, threshold)
    assert found.asr_calibrated.threshold == threshold
    assert found.asr_calibrated.count == int((scores[~member] >= threshold).sum())
    assert found.asr_calibrated.value < found.asr_oracle.value  # type: ignore[operator]
    assert found.roc.fpr[0] == 1 / 1500
    for name in METRICS:
        metric = getattr(found, name)
        assert (metric.level, metric.method is None) == (0.9, False)
        assert metric.low < metric.high  # no number without its interval


def test_without_calibration_the_reason_is_told() -> None:
    scores, member = normal(30, 30)
    assert evaluate(scores, member, n_resamples=5).asr_calibrated.reason == (
        "no calibration set to choose a threshold on"
    )
    told = evaluate(scores, member, calibration_reason="all calibration samples are members", n_resamples=5)
    assert told.asr_calibrated.reason == "all calibration samples are members"
    assert told.asr_calibrated.status == "undefined"


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ([True] * 12, "all 12 audit samples are members: nothing to compare with"),
        ([False] * 3, "all 3 audit samples are non-members: nothing to compare with"),
        ([], "no audit samples: nothing to compare"),
    ],
)
def test_a_missing_class_leaves_everything_undefined(member: list[bool], reason: str) -> None:
    found = evaluate(np.arange(len(member)), np.array(member, dtype=bool), calibration_threshold=0.5)
    assert (found.n_members, found.n_nonmembers) == (sum(member), len(member) - sum(member))
    for name in METRICS:
        metric = getattr(found, name)
        assert (metric.value, metric.status, metric.reason) == (None, "undefined", reason)
    assert found.roc.fpr == ()


def test_nan_scores_are_refused_with_their_number() -> None:
    with pytest.raises(ValueError, match="1 of 3 scores are NaN"):
        evaluate([0.1, math.nan, 0.2], [True, False, True])


@given(
    scores=st.lists(st.integers(-6, 6), min_size=2, max_size=60),
    steps=st.lists(st.floats(1e-3, 1e3), min_size=13, max_size=13),
    data=st.data(),
)
@settings(max_examples=20, deadline=None)
def test_increasing_transforms_and_order_change_nothing(
    scores: list[int], steps: list[float], data: st.DataObject
) -> None:
    member = np.array([True, False] + [data.draw(st.booleans()) for _ in scores[2:]])
    # Sets of hundreds, so that no metric is undefined for want of samples.
    values, member = np.tile(np.array(scores), 100), np.tile(member, 100)
    first = evaluate(values, member, n_resamples=10)
    order = np.random.default_rng(0).permutation(member.size)
    bent = np.cumsum(steps)[values + 6]  # any strictly increasing function of 13 scores
    second = evaluate(bent[order], member[order], n_resamples=10)
    assert without_thresholds(first) == without_thresholds(second)


def test_the_seed_decides_the_intervals() -> None:
    scores, member = normal(400, 1000)
    assert evaluate(scores, member, seed=1, n_resamples=50) == evaluate(scores, member, seed=1, n_resamples=50)
    one, two = (evaluate(scores, member, seed=seed, n_resamples=50) for seed in (1, 2))
    assert one.tpr_at_1.value == two.tpr_at_1.value
    assert (one.tpr_at_1.low, one.tpr_at_1.high) != (two.tpr_at_1.low, two.tpr_at_1.high)


def test_importing_the_metrics_imports_no_heavy_library() -> None:
    code = "import sys, mia_bench.metrics; print([m for m in ('scipy', 'sklearn', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
