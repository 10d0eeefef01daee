"""Figures on real scores. The scores are not redistributable, so this runs only where they were placed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mia_bench.engine.imports import Given, ImportOptions, import_scores
from mia_bench.engine.scores import read_scores
from mia_bench.metrics import evaluate
from mia_bench.metrics.published_rules import by_rule, copymark_carried, labelled
from mia_bench.result import Row

SHARED = Path(os.environ.get("MIA_BENCH_SHARED", Path(__file__).parents[3] / "shared"))
SCORES = SHARED / "reference" / "copymark_laion_mi"

pytestmark = pytest.mark.skipif(not SCORES.is_dir(), reason=f"CopyMark's scores are not in {SCORES}")

# Percent: AUC with DeLong's interval, ASR, TPR at 1 % FPR with its interval, TPR at 0.1 % FPR with its interval.
TABLE = {
    ("pia", "eval", "sum"): (53.48, 51.88, 55.07, 53.30, 1.16, 0.68, 1.96, 0.20, 0.04, 0.40),
    ("pia", "eval", "corr"): (53.56, 51.96, 55.16, 53.42, 1.28, 0.68, 2.08, 0.20, 0.04, 0.36),
    ("pia", "test", "sum"): (52.92, 51.33, 54.52, 52.94, 1.40, 0.76, 2.32, 0.04, 0.00, 0.20),
    ("pia", "test", "corr"): (52.93, 51.34, 54.53, 53.10, 1.44, 0.68, 2.48, 0.04, 0.00, 0.16),
    ("pfami", "eval", "sum"): (51.01, 49.41, 52.61, 51.24, 1.56, 0.68, 2.44, 0.32, 0.00, 0.60),
    ("pfami", "eval", "corr"): (50.86, 49.26, 52.46, 51.80, 1.76, 1.00, 2.44, 0.56, 0.00, 0.80),
    ("pfami", "test", "sum"): (51.01, 49.41, 52.62, 51.36, 1.00, 0.56, 1.92, 0.04, 0.00, 0.28),
    ("pfami", "test", "corr"): (50.82, 49.22, 52.42, 51.32, 0.64, 0.28, 1.12, 0.04, 0.00, 0.20),
}
# As the paper prints them: at the evaluation set's own thresholds, and carried over to the test set.
PRINTED = {
    ("pia", "corr"): ((0.0128, 0.0020, 0.5352), (0.0124, 0.0088, 0.0004, 0.0004)),
    ("pia", "sum"): ((0.0116, 0.0020, 0.5344), (0.0124, 0.0088, 0.0004, 0.0004)),
    ("pfami", "sum"): ((0.0156, 0.0032, 0.5101), (0.0104, 0.0108, 0.0016, 0.0020)),
}


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory):
    """`imported(split, reduce, calibration)`: a run folder of both attacks, and its rows by label."""
    made: dict[tuple[str, ...], tuple[Path, dict[str, Row]]] = {}

    def call(split: str, reduce: str, calibration: str = "") -> tuple[Path, dict[str, Row]]:
        key = (split, reduce, calibration)
        if key not in made:
            parts = [(split, False), *([(calibration, True)] if calibration else [])]
            files = tuple(Given(SCORES / f"{a}_{s}.csv.gz", a, c) for s, c in parts for a in ("pia", "pfami"))
            out = tmp_path_factory.mktemp("run") / "run"
            options = {"": {"reduce": reduce, "lower_is_member": True}}
            result = import_scores(ImportOptions(files, out, options=options, ids_per_split=True))
            made[key] = out, {row.label: row for row in result.rows}
        return made[key]

    return call


@pytest.mark.parametrize(("attack", "split", "reduce"), sorted(TABLE))
def test_recorded_figures(imported, attack: str, split: str, reduce: str) -> None:
    found = imported(split, reduce)[1][attack].evaluation
    auc, low, high, asr, tpr, tpr_low, tpr_high, tpr_01, low_01, high_01 = TABLE[attack, split, reduce]
    assert (found.n_members, found.n_nonmembers) == (2500, 2500)
    assert found.auc.method == "delong-logit"
    values = _percent(found.auc.value, found.asr_oracle.value, found.tpr_at_1.value, found.tpr_at_01.value)
    assert values == pytest.approx((auc, asr, tpr, tpr_01), abs=0.005)
    assert _percent(found.auc.low, found.auc.high) == pytest.approx((low, high), abs=0.012)
    assert _percent(found.tpr_at_1.low, found.tpr_at_1.high) == pytest.approx((tpr_low, tpr_high), abs=0.25)
    assert _percent(found.tpr_at_01.low, found.tpr_at_01.high) == pytest.approx((low_01, high_01), abs=0.13)
    assert (found.tpr_at_1.status, found.tpr_at_01.status) == ("ok", "flagged")


@pytest.mark.parametrize("split", ["eval", "test"])
@pytest.mark.parametrize(("attack", "reduce"), sorted(PRINTED))
def test_nothing_is_found_at_one_percent(imported, attack: str, split: str, reduce: str) -> None:
    """At chance: the interval of the TPR holds the FPR that it is of, for every score that the paper prints.

    It does not for `corr` of PFAMI on eval (1.08 to 2.48), whose means cross zero, one of eight that were looked at.
    """
    row = imported(split, reduce)[1][attack]
    assert row.evaluation.tpr_at_1.low <= 0.01 <= row.evaluation.tpr_at_1.high
    assert row.verdicts["tpr_at_1"].verdict == "at chance"


@pytest.mark.parametrize(("attack", "reduce"), sorted(PRINTED))
def test_printed_figures_by_the_rule_they_were_made_by(imported, attack: str, reduce: str) -> None:
    folder, _ = imported("test", reduce, "eval")
    scores = read_scores(folder)[attack]
    sides = {split: np.array([own == split for own in scores.split]) for split in ("audit", "calibration")}
    member = np.array([m is True for m in scores.member])
    test, chosen_on = (labelled(scores.values[side], member[side]) for side in sides.values())
    own, carried = PRINTED[attack, reduce]
    found = by_rule(chosen_on.scores, chosen_on.member)["CopyMark"]
    assert (found.tails[0.01].value, found.tails[0.001].value) == own[:2]
    assert found.auc == pytest.approx(own[2], abs=5e-5)
    rates = [copymark_carried(chosen_on, test, rate) for rate in (0.01, 0.001)]
    assert [x for at in rates for x in (at.tpr, at.fpr)] == pytest.approx(list(carried), abs=1e-12)
    assert by_rule(test.scores, test.member, (chosen_on.scores, chosen_on.member))["CopyMark"].carried[0.01] == rates[0]


def test_rows_of_scaled_scores_say_so(imported) -> None:
    pia, pfami = (imported("test", "corr")[1][attack].tags for attack in ("pia", "pfami"))
    assert pia == ("imported", "transductive")
    assert pfami == ("imported", "transductive", "corr of scores of both signs")


def test_an_import_is_the_sum_of_the_file(imported) -> None:
    """Against numpy's own reading."""
    sample, label, _, score = np.loadtxt(SCORES / "pfami_eval.csv.gz", delimiter=",", skiprows=1, unpack=True)
    summed: NDArray[np.float64] = np.bincount(sample.astype(int), score)
    member = np.zeros(summed.size, dtype=bool)
    member[sample[label == 1].astype(int)] = True
    found = imported("eval", "sum")[1]["pfami"].evaluation
    assert found.auc.value == evaluate(-summed, member).auc.value


def _percent(*values: float | None) -> tuple[float, ...]:
    return tuple(100 * value for value in values if value is not None)
