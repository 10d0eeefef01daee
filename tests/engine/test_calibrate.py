"""Calibration on another run: what is fitted where, what must not leak, and what is said of it."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from mia_bench.engine.calibrate import Other, scored_in
from mia_bench.engine.imports import Given, ImportOptions, import_scores
from mia_bench.engine.plan import read_plan
from mia_bench.engine.run import read_result, rescore, rescore_tasks
from mia_bench.engine.scores import read_scores
from mia_bench.errors import NothingError, UnavailableError, UsageError
from mia_bench.metrics import best_threshold, tpr_at_fpr
from mia_bench.metrics.roc import exact_roc
from mia_bench.store import Store
from mia_bench_plugins.attacks import clid

OURS = tiny.icons(12, 12)


def others(*counts):
    """Icons that a run on `OURS` does not know, as far as it can tell: other names, hashes and groups."""
    named = [(s, s.group or s.id) for s in tiny.icons(*counts)]
    return [replace(s, id=f"other-{s.id}", content=f"other {s.content}", group=f"other-{g}") for s, g in named]


THEIRS = others(20, 20, (8, 8))


@pytest.fixture(scope="module")
def shadow(tmp_path_factory):
    """A run on a shadow model and other samples."""
    folder = tmp_path_factory.mktemp("shadow")
    tiny.go(folder, tiny.registry(samples=THEIRS), "clid,loss,logged", target="tiny:8")
    return folder


def run(folder, shadow, attacks="clid,loss", samples=OURS, registry=None, **options):
    return tiny.go(folder, registry or tiny.registry(samples=samples), attacks, calibrate_on=shadow, **options)


def measured(folder, label):
    """Ids and terms of all that a run measured for an attack."""
    plan = read_plan(Store(folder))
    planned = next(a for a in plan.attacks if a.label == label)
    return plan, Store(folder).terms(planned.fingerprint, plan.samples.pairs)[1]


def test_what_is_fitted_is_fitted_on_the_other_run(tmp_path, shadow):
    result = run(tmp_path, shadow)
    row = tiny.row(result, "clid")
    plan, terms = measured(shadow, "clid")
    member = plan.samples.is_member
    pairs = [clid.CLiD.terms(t) for t in (terms, measured(tmp_path, "clid")[1])]
    fake = type("Labelled", (), {"member": member})
    alpha = clid.best_alpha(*pairs[0], fake)
    assert row.fitted == {"alpha": alpha} and row.tags == ()
    theirs, ours = (
        sum(w * clid.robust(v, on) for w, v, on in zip((alpha, 1 - alpha), one, pairs[0], strict=True)) for one in pairs
    )
    assert [*read_scores(tmp_path)["clid"].values] == pytest.approx([*ours])
    assert row.evaluation.asr_calibrated.threshold == pytest.approx(best_threshold(theirs, member))
    assert row.calibration.model_dump() == {
        "source": "shadow", "n_members": 28, "n_nonmembers": 28, "left_out": 0, "reason": None,
    }  # fmt: skip
    assert "fewer than 1" in row.evaluation.transferred[0].tpr.reason, "28 calibration non-members"


def test_the_threshold_of_a_rate_is_the_other_runs(tmp_path):
    tiny.go(tmp_path / "shadow", tiny.registry(samples=others(30, 110)), "loss", target="tiny:8")
    row = tiny.row(run(tmp_path / "run", tmp_path / "shadow", "loss"), "loss")
    scores = read_scores(tmp_path / "shadow")["loss"]
    at = tpr_at_fpr(exact_roc(scores.values, np.array(scores.member, dtype=bool)), 0.01).threshold
    one = row.evaluation.transferred[0]
    assert one.n_calibration == 110 and one.tpr.status == "flagged" and one.tpr.threshold <= at
    own = read_scores(tmp_path / "run")["loss"]
    called = own.values[own.audited(False)] >= one.tpr.threshold
    assert one.fpr.value == called.mean()


def test_a_row_names_what_calibrated_it(tmp_path, shadow):
    result = run(tmp_path, shadow)
    other = read_result(shadow)
    for found in (result.shadow, read_result(tmp_path).shadow, read_plan(Store(tmp_path)).shadow):
        assert found.run == str(shadow) and found.target == "tiny:8"
        assert found.target_fingerprint == other.target_fingerprint != result.target_fingerprint
        assert found.samples_hash == other.samples_hash
    assert result.calibration is None and tiny.row(result, "loss").calibration.source == "shadow"


def test_measurements_are_not_touched(tmp_path, shadow, monkeypatch):
    monkeypatch.setenv("TINY_LOG", str(tmp_path / "log"))
    before = tiny.go(tmp_path / "run", tiny.registry(samples=OURS), "logged")
    once = (tmp_path / "log").read_text()
    after = run(tmp_path / "run", shadow, "logged")
    assert (tmp_path / "log").read_text() == once
    assert tiny.row(before, "logged").fingerprint == tiny.row(after, "logged").fingerprint
    assert tiny.row(before, "logged").evaluation.asr_calibrated.value is None
    assert tiny.row(after, "logged").evaluation.asr_calibrated.value is not None


def test_the_own_calibration_set_is_not_used(tmp_path, shadow):
    samples = tiny.icons(12, 12, (6, 6))
    own = tiny.go(tmp_path, tiny.registry(samples=samples), "loss")
    assert (tiny.row(own, "loss").calibration.source, tiny.row(own, "loss").calibration.n_members) == ("own", 6)
    other = rescore(tiny.registry(samples=samples), tmp_path, {})
    assert tiny.row(other, "loss") == tiny.row(own, "loss")
    row = tiny.row(run(tmp_path, shadow, "loss", samples), "loss")
    assert (row.calibration.source, row.calibration.n_members) == ("shadow", 28)
    assert row.evaluation.asr_calibrated.threshold != tiny.row(own, "loss").evaluation.asr_calibrated.threshold


def test_audited_samples_are_left_out(tmp_path):
    """The same dataset: only the calibration set of the shadow run remains, though this run has it too."""
    samples = tiny.icons(12, 12, (6, 6))
    tiny.go(tmp_path / "shadow", tiny.registry(samples=samples), "clid", target="tiny:8")
    row = tiny.row(run(tmp_path / "run", tmp_path / "shadow", "clid", samples), "clid")
    assert (row.calibration.n_members, row.calibration.n_nonmembers, row.calibration.left_out) == (6, 6, 24)


def test_a_sample_leaks_by_id_content_and_group(tmp_path):
    ours = [replace(s, group=f"g{i}") for i, s in enumerate(OURS)]
    members = [s for s in THEIRS if s.member][:6]
    leaks = [
        replace(members[0], id=ours[0].id),
        replace(ours[1], id="same content", group="elsewhere"),
        replace(members[1], group="g2"),
        replace(ours[3], id="same image", group="elsewhere too", caption="another"),
    ]
    theirs = [*leaks, *members[2:], *[s for s in THEIRS if not s.member][:4]]
    tiny.go(tmp_path / "shadow", tiny.registry(samples=theirs), "loss", target="tiny:8")
    result = run(tmp_path / "run", tmp_path / "shadow", "loss", ours)
    kept = tiny.row(result, "loss").calibration
    assert (kept.n_members, kept.n_nonmembers, kept.left_out) == (4, 4, 4)
    plans = [read_plan(Store(tmp_path / name)).samples for name in ("run", "shadow")]
    gone = {plans[1].id[i] for i in np.flatnonzero(scored_in(*plans))}
    assert gone == {leak.id for leak in leaks}
    for i in (0, 1):  # a plan of an earlier version knows no images
        before = [plan.model_copy(update={"content": ()}) if i == j else plan for j, plan in enumerate(plans)]
        assert {plans[1].id[i] for i in np.flatnonzero(scored_in(*before))} == {leak.id for leak in leaks[:3]}


def test_nothing_is_left(tmp_path):
    tiny.go(tmp_path / "shadow", tiny.registry(samples=OURS), "loss", target="tiny:8")
    with pytest.raises(NothingError, match="all its 24 labelled samples are audited by this run too"):
        run(tmp_path / "run", tmp_path / "shadow", "loss")
    assert not (tmp_path / "run" / "results.json").exists()
    half = [s for s in OURS if not s.member] + [s for s in THEIRS if s.member]
    tiny.go(tmp_path / "half", tiny.registry(samples=half), "loss", target="tiny:8")
    row = tiny.row(run(tmp_path / "run", tmp_path / "half", "loss"), "loss")
    assert row.calibration.source == "none" and "no labelled non-members" in row.calibration.reason
    assert "12 are audited by this run too" in row.calibration.reason


def test_an_attack_that_the_other_run_lacks_or_defines_otherwise(tmp_path, shadow):
    result = run(tmp_path, shadow, "clid,pia,loss", options={"clid": {"t": [300]}})
    for label, why in (("pia", "has no pia; run it there too"), ("clid", "has another definition in")):
        row = tiny.row(result, label)
        assert row.status == "ok" and row.calibration.source == "none" and why in row.calibration.reason
        assert row.evaluation.asr_calibrated.reason == row.calibration.reason
    assert "transductive" in tiny.row(result, "clid").tags
    assert tiny.row(result, "loss").calibration.source == "shadow"


def test_presets_that_measure_the_same_are_found_under_another_name(tmp_path, shadow):
    row = tiny.row(run(tmp_path, shadow, "logged@double"), "logged@double")
    assert row.calibration.source == "shadow"


def trained(seen):
    """An attack that must be calibrated, by the distance to the members' mean; `seen` keeps what it was given."""

    def score(self, given, calibration):
        seen.append(calibration)
        return -np.abs(given["loss"] - calibration["loss"][calibration.member].mean())

    return tiny.attack("trained", score=score, meta={"calibration": "required"})


def test_an_attack_that_needs_calibration_runs_without_a_set_of_its_own(tmp_path, shadow):
    seen = []
    plugin = tiny.plugin([trained(seen)])
    tiny.go(tmp_path / "shadow", tiny.registry(plugin, samples=THEIRS), "trained", target="tiny:8")
    with pytest.raises(UsageError, match="calibration set"):
        tiny.go(tmp_path / "alone", tiny.registry(plugin, samples=OURS), "trained")
    seen.clear()
    registry = tiny.registry(plugin, samples=OURS)
    row = tiny.row(run(tmp_path / "run", tmp_path / "shadow", "trained", registry=registry), "trained")
    assert row.status == "ok" and row.n == 24
    (given,) = seen
    assert len(given.ids) == 56 and not given.audit.any() and given.member.sum() == 28
    # ... and where the other run lacks it, it has no scores, with the reason.
    lacking = tiny.row(run(tmp_path / "lack", shadow, "trained", registry=registry), "trained")
    assert lacking.status == "empty" and "has no trained; run it there too" in lacking.reason


def test_known_members_of_the_target_are_more_than_a_shadow(tmp_path):
    tiny.go(tmp_path / "other", tiny.registry(samples=THEIRS), "loss")
    row = tiny.row(run(tmp_path / "run", tmp_path / "other", "loss"), "loss")
    assert row.calibration.source == "same target"


def test_rescoring_with_and_without(tmp_path, shadow):
    registry = tiny.registry(samples=OURS)
    plain = tiny.go(tmp_path, registry, "clid,loss")
    (lent,) = rescore_tasks(registry, tmp_path, {}, calibrate_on=shadow)
    assert lent.rows == run(tmp_path, shadow).rows, "without a target, the same"
    assert rescore(registry, tmp_path, {}).rows == lent.rows, "as it was planned"
    (own,) = rescore_tasks(registry, tmp_path, {}, calibrate_on=tmp_path)
    assert own.rows == plain.rows and own.shadow is None and own.calibration == plain.calibration


def test_the_other_run_is_gone_or_another_one(tmp_path, shadow):
    copy = tmp_path / "copy"
    shutil.copytree(shadow, copy)
    registry = tiny.registry(samples=OURS)
    run(tmp_path / "run", copy, "loss")
    tiny.go(copy, tiny.registry(samples=THEIRS[:30]), "loss", target="tiny:8")
    with pytest.raises(UsageError, match="not the run any more that was planned with: samples_hash"):
        rescore(registry, tmp_path / "run", {})
    shutil.rmtree(copy)
    with pytest.raises(UnavailableError, match="copy"):
        rescore(registry, tmp_path / "run", {})


def test_the_other_run_is_found_from_any_folder(tmp_path, shadow, monkeypatch):
    registry = tiny.registry(samples=OURS)
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(shadow, tmp_path / "home" / "sh")
    monkeypatch.chdir(tmp_path / "home")
    before = run(Path("run"), Path("sh"), "loss")
    assert before.shadow.run == "sh" and str(tmp_path) not in Path("run/run.json").read_text()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert rescore(registry, tmp_path / "home" / "run", {}) == before
    (tmp_path / "home").rename(tmp_path / "moved")
    assert rescore(registry, tmp_path / "moved" / "run", {}) == before
    (tmp_path / "moved" / "sh").rename(tmp_path / "sh")
    with pytest.raises(UnavailableError, match=r"--calibrate-on sh.*no run\.json") as caught:
        rescore(registry, tmp_path / "moved" / "run", {})
    assert "--calibrate-on RUN" in caught.value.fix
    (after,) = rescore_tasks(registry, tmp_path / "moved" / "run", {}, calibrate_on=tmp_path / "sh")
    assert after.rows == before.rows


def test_imported_scores_do_not_calibrate(tmp_path):
    (tmp_path / "loss.csv").write_text("sample,label,score\na,1,1\nb,0,0\n")
    import_scores(ImportOptions((Given.parse(str(tmp_path / "loss.csv")),), tmp_path / "imported"))
    registry = tiny.registry(samples=OURS)
    with pytest.raises(UsageError, match="imported: it holds imported scores"):
        run(tmp_path / "run", tmp_path / "imported", "loss")
    before = tiny.go(tmp_path / "run", registry, "loss")
    with pytest.raises(UsageError, match="imported: it holds imported scores"):
        rescore_tasks(registry, tmp_path / "run", {}, calibrate_on=tmp_path / "imported")
    assert read_result(tmp_path / "run") == before


def test_other_captions_do_not_calibrate(tmp_path, shadow):
    with pytest.raises(UsageError, match="it took captions `true`, this run `null`"):
        run(tmp_path, shadow, "loss", captions="null")


def test_labels_that_nobody_knows_do_not_calibrate(tmp_path):
    unknown = [replace(s, member=None) for s in THEIRS]
    tiny.go(tmp_path / "shadow", tiny.registry(samples=unknown), "loss")
    with pytest.raises(NothingError, match="no labelled samples"):
        run(tmp_path / "run", tmp_path / "shadow", "loss")


def test_memorised_images_of_the_other_run_are_no_usual_members(tmp_path):
    odd = [replace(s, split="memorised") if i == 0 else s for i, s in enumerate(THEIRS)]
    tiny.go(tmp_path / "shadow", tiny.registry(samples=odd), "loss", target="tiny:8")
    row = tiny.row(run(tmp_path / "run", tmp_path / "shadow", "loss"), "loss")
    assert row.calibration.n_members + row.calibration.n_nonmembers == len(odd) - 1


def test_what_is_measured_of_another_architecture_does_not_fit(shadow, tmp_path):
    other = Other.read(shadow)
    tiny.go(tmp_path, tiny.registry(samples=OURS), "loss")
    plan = read_plan(Store(tmp_path))
    planned = next(a for a in plan.attacks if a.label == "loss")
    why = other.find(plan, planned, {"loss": np.zeros((24, 7))})
    assert isinstance(why, str) and "has another shape than here" in why
