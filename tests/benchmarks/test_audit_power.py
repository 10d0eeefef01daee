"""The benchmark of the audit, in small: real scores of an embedded target, few draws."""

import json
from pathlib import Path

from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.run import run
from mia_bench.plugins import Registry

HERE = Path(__file__).parents[2] / "benchmarks" / "audit"


def test_false_positives_are_nominal_and_members_are_found(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import power

    for name, value in {"TARGETS": ("emoji-overtrain",), "ATTACKS": ("pia", "sima"), "SIZES": (5, 20)}.items():
        monkeypatch.setattr(power, name, value)
    run(
        Registry.load(),
        RunOptions(attacks="pia,sima", target="emoji-overtrain", limit=50, out=tmp_path / power.TARGETS[0]),
    )
    power.main(tmp_path, tmp_path / "out.json", 100)
    found = json.loads((tmp_path / "out.json").read_text())["targets"]["emoji-overtrain"]
    for rows in (found["false_positives"], found["one_image"], found["one_image_one_attack"]):
        assert [(row["n"], row["alpha"]) for row in rows] == [(5, 0.05), (5, 0.01), (20, 0.05), (20, 0.01)]
        assert all(row["binomial_holm"] > 0.01 and row["draws"] == 100 for row in rows)
    power_of = {(row["n"], row["alpha"]): row["share"] for row in found["power"]}
    assert all(row["share"] == 0 for row in found["one_image"]), "20 non-members are too few for two attacks"
    assert power_of[5, 0.05] > 0.4 and power_of[20, 0.01] > 0.8


def test_a_rate_that_is_off_is_rejected(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    import numpy as np
    import power

    off = np.concatenate([np.full(160, 0.04), np.full(1840, 0.5)])
    assert power.rates(10, off, "two-sided")[0]["binomial_p"] < 1e-6
