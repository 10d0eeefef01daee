"""Runs on samples of unknown membership: scored, counted above thresholds where non-members are known."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny

from mia_bench.engine.run import read_result, rescore
from mia_bench.errors import ExitStatus
from mia_bench.metrics import threshold_at
from mia_bench.report.table import exit_status, notes, show_details, show_results
from mia_bench_plugins.controls import blind

ATTACKS = "loss,clid,blind"


def registry(samples):
    """The tiny benchmark with the blind control."""
    return tiny.registry(blind, samples=samples)


def of(folder, attack="loss"):
    """Scores by (split, label)."""
    rows = [r for r in pq.read_table(folder / "scores.parquet").to_pylist() if r["attack"] == attack]
    return lambda split, label: np.array([r["score"] for r in rows if (r["split"], r["label"]) == (split, label)])


@pytest.mark.parametrize("place", ["audit", "calibration"])
def test_non_members_alone_give_thresholds(tmp_path, capsys, place):
    known = {"others": 120} if place == "audit" else {"others": 0, "calibration": (0, 120)}
    samples = tiny.icons(0, **known, unknown=30)
    made = registry(samples=samples)
    result = tiny.go(tmp_path, made, attacks=ATTACKS)
    assert (result.n_members, result.n_nonmembers, result.n_unknown) == (0, 120, 30)
    scores = of(tmp_path)
    suspects, nonmembers = scores("audit", None), scores("audit", False)
    counted = tiny.row(result, "loss").suspects
    assert (counted.n, counted.n_nonmembers) == (30, 120)
    for rate in counted.rates:
        threshold = threshold_at(nonmembers, rate.max_fpr)
        assert rate.share.threshold == threshold
        assert rate.above == (suspects >= threshold).sum() == round(30 * rate.share.value)
    assert tiny.row(result, "blind").suspects.n == 30, "the blind control is asked the same"
    assert exit_status(result) == ExitStatus.OK
    assert read_result(tmp_path) == rescore(made, tmp_path, {}) == result
    show_results([result], False)
    show_details(result)
    said = capsys.readouterr().out
    assert "above at 1 % FPR" in said and f"{counted.rates[1].above}: " in said
    assert "nothing could be compared" not in said and "as far as the non-members are like the suspects" in said
    assert ("its 120 non-members are in the audit set" in said) == (place == "calibration")


def test_a_calibration_set_that_attacks_are_fitted_on_gives_thresholds_only_to_those_that_are_not(tmp_path):
    made = registry(samples=tiny.icons(0, 0, (20, 120), unknown=20))
    result = tiny.go(tmp_path, made, attacks=ATTACKS)
    assert tiny.row(result, "loss").suspects.n_nonmembers == 120
    assert tiny.row(result, "clid").suspects is tiny.row(result, "blind").suspects is None
    assert any("no count of clid: fitted on the only known non-members" in note for note in notes(result))


def test_suspects_beside_both_classes_leave_the_audit_as_it_is(tmp_path):
    samples = tiny.icons(40, 120, unknown=20)
    alone = tiny.go(tmp_path / "alone", registry(samples=samples[:160]), attacks="loss,blind")
    beside = tiny.go(tmp_path / "beside", registry(samples=samples), attacks="loss,blind")
    for label in ("loss", "blind"):
        assert tiny.row(alone, label).evaluation == tiny.row(beside, label).evaluation
        assert tiny.row(alone, label).suspects is None
        assert tiny.row(beside, label).suspects.n == 20


def test_without_labels_samples_are_scored_and_nothing_is_compared(tmp_path):
    result = tiny.go(tmp_path, registry(samples=tiny.icons(0, 0, unknown=12)), attacks="loss")
    assert len(of(tmp_path)("audit", None)) == 12
    assert tiny.row(result, "loss").suspects is None
    assert "nothing could be compared: 12 samples have no label" in "\n".join(notes(result))
    assert exit_status(result) == ExitStatus.NOTHING


def test_too_few_non_members_to_count_is_nothing_compared(tmp_path):
    result = tiny.go(tmp_path, registry(samples=tiny.icons(0, 12, unknown=12)), attacks="loss")
    assert [rate.above for rate in tiny.row(result, "loss").suspects.rates] == [None, None]
    said = "\n".join(notes(result))
    assert "5 % of 12 non-members is 0.6 errors" in said and "nothing could be compared" in said
    assert exit_status(result) == ExitStatus.NOTHING


def test_members_alone_are_compared_with_the_non_members_set_apart(tmp_path):
    result = tiny.go(tmp_path, registry(samples=tiny.icons(20, 0, (0, 20))), attacks="loss")
    assert (result.n_members, result.n_nonmembers) == (20, 20)
    assert tiny.row(result, "loss").evaluation.auc.value is not None
