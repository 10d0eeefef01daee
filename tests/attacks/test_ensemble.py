"""The ensemble: what it is made of, what it weighs, and what it must not trust."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from mia_bench import Scores
from mia_bench.attack import Measured
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.metrics import auc
from mia_bench_plugins.attacks import ensemble, pian
from mia_bench_plugins.attacks.ensemble import Ensemble

SAMPLES = tiny.icons(20, 20, (15, 15))


def made(*modules, samples=SAMPLES):
    return tiny.registry(pian, ensemble, *modules, samples=samples)


def numbered(name, signal, noise, seed):
    """An attack whose scores are a signal of membership, read off the id, in noise."""
    member = {s.id: float(s.member is True) for s in SAMPLES}
    rng = np.random.default_rng(seed)
    draws = {s.id: float(rng.normal()) for s in SAMPLES}

    def score(self, measured, calibration):
        return np.array([signal * member[i] + noise * draws[i] for i in measured.ids])

    return tiny.attack(name, score=score)


def remembering(self, measured, calibration):
    """Knows each sample that it was fitted on, and nothing else."""
    known = dict(zip(calibration.ids, calibration.member, strict=True)) if calibration else {}
    return np.array([10.0 * (2 * known[i] - 1) if i in known else 0.0 for i in measured.ids])


def test_it_weighs_what_tells_more(tmp_path):
    registry = made(tiny.plugin([numbered("strong", 2.0, 1.0, 1), numbered("weak", 0.3, 1.0, 2)]))
    result = tiny.go(tmp_path, registry, "ensemble", options={"ensemble": {"of": ["strong", "weak"]}})
    row = tiny.row(result, "ensemble")
    assert row.status == "ok" and row.fitted.keys() == {"strong", "weak"}
    assert row.fitted["strong"] > 2 * abs(row.fitted["weak"])
    assert row.evaluation.auc.value > 0.8 and "label-assisted" in row.tags
    assert {r.label for r in result.rows} == {"strong", "weak", "ensemble"}


def test_it_does_not_trust_an_attack_that_remembers_its_calibration_set(tmp_path):
    """Its scores of calibration samples come from fits without them, so that it earns no weight."""
    remembers = tiny.attack("remembers", score=remembering, meta={"calibration": "optional"})
    registry = made(tiny.plugin([remembers, numbered("honest", 1.5, 1.0, 1)]))
    result = tiny.go(tmp_path, registry, "ensemble", options={"ensemble": {"of": ["honest", "remembers"]}})
    row, alone = tiny.row(result, "ensemble"), tiny.row(result, "honest")
    assert row.fitted["remembers"] == pytest.approx(0) and row.fitted["honest"] > 0.5
    assert row.evaluation.auc.value == alone.evaluation.auc.value
    values = tiny.scores(tmp_path)
    calibrating = [s for s in SAMPLES if s.split == "calibration"]
    own = [values["remembers", s.id] for s in calibrating]
    assert auc(own, [s.member for s in calibrating]) == 1.0, "by itself it is right of all that it saw"


def test_it_asks_nothing_of_its_own(tmp_path):
    registry = made()
    alone = tiny.go(tmp_path / "alone", registry, "loss,pia,pian")
    both = tiny.go(tmp_path / "both", registry, "ensemble")
    row = tiny.row(both, "ensemble")
    assert row.queries == sum(tiny.row(both, label).queries for label in ("loss", "pia", "pian")) == 5
    assert (both.cost.asked, both.cost.executed) == (alone.cost.asked, alone.cost.executed)
    values = tiny.scores(tmp_path / "alone")
    assert values == {key: value for key, value in tiny.scores(tmp_path / "both").items() if key in values}


def test_it_is_added_to_a_finished_run_without_measuring(tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_LOG", str(tmp_path / "log"))
    options = {"options": {"ensemble": {"of": ["logged", "loss"]}}}
    tiny.go(tmp_path / "run", made(), "logged,loss")
    before = (tmp_path / "log").read_text()
    result = tiny.go(tmp_path / "run", made(), "logged,loss,ensemble", **options)
    assert tiny.row(result, "ensemble").status == "ok"
    assert (tmp_path / "log").read_text() == before


def test_presets_of_one_measurement_are_paid_once(tmp_path):
    result = tiny.go(tmp_path, made(), "ensemble", options={"ensemble": {"of": ["logged", "logged@double", "pia"]}})
    assert tiny.row(result, "ensemble").queries == 3


def test_an_ensemble_of_ensembles(tmp_path):
    """Fits within fits leave out what the outer fold leaves out."""
    outer = type("Outer", (Ensemble,), {"meta": Ensemble.meta.model_copy(update={"name": "outer"}), "presets": {}})
    remembers = tiny.attack("remembers", score=remembering, meta={"calibration": "optional"})
    registry = made(tiny.plugin([outer, remembers, numbered("honest", 1.5, 1.0, 1)]))
    options = {"outer": {"of": ["ensemble", "honest"]}, "ensemble": {"of": ["honest", "remembers"]}}
    result = tiny.go(tmp_path, registry, "outer", options=options)
    row = tiny.row(result, "outer")
    assert row.status == "ok" and row.queries == 2, "the loss of honest and of remembers, once each"
    assert row.evaluation.auc.value == tiny.row(result, "honest").evaluation.auc.value


def test_without_a_calibration_set_it_is_left_out(tmp_path):
    registry = made(samples=tiny.icons(6, 6))
    result = tiny.go(tmp_path, registry, "all")
    assert "calibration" in result.skipped["ensemble"]
    with pytest.raises(UsageError, match="calibration"):
        tiny.go(tmp_path, registry, "ensemble")


def test_what_it_requires_cannot_run(tmp_path):
    with pytest.raises(UsageError, match="requires clid") as caught:
        tiny.go(tmp_path, made(), "ensemble@caption", target="tiny-mute")
    assert "captions" in str(caught.value)
    assert (
        "requires clid" in tiny.go(tmp_path, made(), "*@caption,loss", target="tiny-mute").skipped["ensemble@caption"]
    )


def test_what_it_requires_fails(tmp_path):
    def broken(self, measured, calibration):
        raise RuntimeError("no idea")

    registry = made(tiny.plugin([tiny.attack("broken", score=broken)]))
    result = tiny.go(tmp_path, registry, "ensemble", options={"ensemble": {"of": ["broken", "loss"]}})
    row = tiny.row(result, "ensemble")
    assert row.status == "empty" and row.reason.startswith("it requires broken: score failed")
    assert tiny.row(result, "loss").status == "ok"


def test_samples_that_one_attack_lacks_are_left_out(tmp_path):
    def some(self, measured, calibration):
        return Scores(-measured["loss"])

    registry = made(tiny.plugin([tiny.attack("some", score=some)]))
    options = {"some": {"samples": 8}, "ensemble": {"of": ["loss", "some"]}}
    result = tiny.go(tmp_path, registry, "ensemble", options=options)
    assert tiny.row(result, "ensemble").n == 16 and tiny.row(result, "loss").n == 40
    assert tiny.row(result, "ensemble").calibration.n_members == 8
    options["ensemble"]["samples"] = 5
    result = tiny.go(tmp_path, registry, "ensemble", options=options)
    assert (tiny.row(result, "ensemble").n, tiny.row(result, "loss").n) == (10, 40)


def test_order_of_samples_does_not_matter():
    rng = np.random.default_rng(0)
    ids = tuple(f"s{i:02}" for i in range(40))
    member = rng.random(40) < 0.5
    everything = Measured({"a": rng.normal(size=40) + member, "b": rng.normal(size=40)}, ids, np.arange(40) >= 24, ids)
    calibration = replace(everything.select(np.arange(40) < 24), member=member[:24])
    turned = np.arange(40)[::-1]
    other = Measured({n: v[turned] for n, v in everything.items()}, ids[::-1], everything.audit[turned], ids[::-1])
    mine, theirs = (Ensemble().score(one, calibration) for one in (everything, other))
    assert np.allclose(mine.values, theirs.values[turned], rtol=1e-12) and mine.fitted == theirs.fitted
    endless = replace(everything, terms={**everything.terms, "a": np.full(40, np.inf)})
    with pytest.raises(MiaBenchError, match="scores of a: some are infinite"):
        Ensemble().score(endless, calibration)


@pytest.mark.parametrize("of", [["loss"], ["loss", "loss"]])
def test_it_takes_two_or_more(tmp_path, of):
    with pytest.raises(UsageError, match=r"ensemble\.of"):
        tiny.go(tmp_path, made(), "ensemble", options={"ensemble": {"of": of}})
