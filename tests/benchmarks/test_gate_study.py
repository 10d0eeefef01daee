"""The study of the gate, in small."""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2] / "benchmarks" / "gate"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import study

    monkeypatch.setattr(study, "SIZES", (40, 120))
    monkeypatch.setattr(study, "FAMILIES", (1, 3))
    return study


def test_alarms_are_rare_and_the_detectable_change_is_found(study, tmp_path):
    study.main(tmp_path / "out.json", 60, 12)
    found = json.loads((tmp_path / "out.json").read_text())
    assert "rows" not in found, "the leaderboard passes it over"
    cells = {(c["metric"], c["n"], c["attacks"], c["direction"], round(c["before"], 2)): c for c in found["cells"]}
    assert len(cells) == 2 * 2 * (4 + 2) and not any(key[:2] == ("tpr_at_1", 40) for key in cells)
    auc = [c for c in found["cells"] if c["metric"] == "auc"]
    for name in ("alarms", "alarms_at_margin"):
        assert sum(c[name]["count"] for c in auc) <= 0.09 * sum(c[name]["of"] for c in auc)
    assert sum(c["found"]["count"] for c in auc) >= 0.78 * sum(c["found"]["of"] for c in auc)
    assert all(c["repeats"] == (60 if c["metric"] == "auc" else 12) for c in cells.values())


def test_an_alarm_that_is_too_frequent_is_rejected(study, monkeypatch):
    monkeypatch.setattr(study, "CORRELATION", 0.8)
    right = study.judged_together
    monkeypatch.setattr(study, "judged_together", lambda c, way, margin=0.0, alpha=0.05: right(c, way, margin, 0.3))
    rows = study.cell("auc", 40, 0.0, 60, 0)
    assert all(row["alarms"]["binomial_p"] < 1e-3 for row in rows if row["direction"] == "rise")


def test_shifts_and_values_are_each_others_inverse(study):
    for metric in study.METRICS:
        assert study.value_of(metric, study.shift_of(metric, 0.3)) == pytest.approx(0.3)
    assert study.value_of("auc", 0.0) == 0.5 and study.value_of("tpr_at_1", 0.0) == pytest.approx(0.01)
