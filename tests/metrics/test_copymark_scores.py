"""Figures on real scores. The scores are not redistributable, so this runs only where they were placed."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from mia_bench.metrics import evaluate

SCORES = Path(__file__).parents[3] / "shared" / "reference" / "copymark_laion_mi"

pytestmark = pytest.mark.skipif(not SCORES.is_dir(), reason="CopyMark's scores are not here")

# Percent: AUC with DeLong's interval, ASR, TPR at 1 % FPR with its interval, TPR at 0.1 % FPR.
TABLE = {
    "pfami_eval": (51.01, 49.41, 52.61, 51.24, 1.56, 0.68, 2.44, 0.32),
    "pfami_test": (51.01, 49.41, 52.62, 51.36, 1.00, 0.56, 1.92, 0.04),
}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_recorded_figures(name: str) -> None:
    with gzip.open(SCORES / f"{name}.csv.gz", "rt") as rows:
        sample, label, _, score = np.loadtxt(rows, delimiter=",", skiprows=1, unpack=True)
    summed = np.bincount(sample.astype(int), score)
    member = np.zeros(summed.size, dtype=bool)
    member[sample[label == 1].astype(int)] = True
    found = evaluate(-summed, member)  # lower = member in the files
    auc, low, high, asr, tpr, tpr_low, tpr_high, tpr_01 = TABLE[name]
    assert found.auc.method == "delong-logit"
    assert _percent(found.auc.value, found.auc.low, found.auc.high) == pytest.approx((auc, low, high), abs=0.012)
    assert _percent(found.asr_oracle.value, found.tpr_at_1.value, found.tpr_at_01.value) == pytest.approx(
        (asr, tpr, tpr_01), abs=0.005
    )
    assert _percent(found.tpr_at_1.low, found.tpr_at_1.high) == pytest.approx((tpr_low, tpr_high), abs=0.2)
    assert (found.tpr_at_1.status, found.tpr_at_01.status) == ("ok", "flagged")


def _percent(*values: float | None) -> tuple[float, ...]:
    return tuple(100 * value for value in values if value is not None)
