"""Exact figures for made-up scores, beside what published evaluation code reports for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mia_bench.metrics import asr_oracle, evaluate, exact_roc, roc_auc, tnr_at_fnr, tpr_at_fpr

GOLDEN = Path(__file__).parents[1] / "parity" / "fixtures" / "golden_metrics.npz"


@pytest.mark.parametrize("case", ["normal", "heavy", "skew"])
def test_exact_figures(case: str) -> None:
    with np.load(GOLDEN) as golden:
        members, others = golden[f"{case}_member"], golden[f"{case}_nonmember"]
        expected = golden[f"{case}_exact"]
    scores = -np.concatenate([members, others])  # lower = member in the file
    member = np.arange(scores.size) < members.size
    roc = exact_roc(scores, member)
    found = [roc_auc(roc), tpr_at_fpr(roc, 0.01).value, asr_oracle(roc).value]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    record = evaluate(scores, member, n_resamples=20)
    values = [record.auc.value, record.tpr_at_1.value, record.asr_oracle.value]
    np.testing.assert_allclose(np.array(values, dtype=float), expected, rtol=0, atol=1e-12)


def test_the_two_tails_differ() -> None:
    """CLiD's published figure on `skew` is the other tail: its 0.013 is no TPR (0.177) but near the TNR."""
    with np.load(GOLDEN) as golden:
        members, others, clid = (golden[f"skew_{part}"] for part in ("member", "nonmember", "clid"))
    scores = -np.concatenate([members, others])
    roc = exact_roc(scores, np.arange(scores.size) < members.size)
    assert tpr_at_fpr(roc, 0.01).value == pytest.approx(0.1767, abs=1e-4)
    assert tnr_at_fnr(roc, 0.01).value == pytest.approx(clid[2], abs=1 / 300)
