"""The gate on finished runs: a broken attack, a leakier checkpoint, and runs that answer neither question."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch

from mia_bench.diffusion.reduce import power_mean
from mia_bench.engine.baseline import FILES, record
from mia_bench.engine.compare import Gate, compare
from mia_bench.engine.imports import Given, ImportOptions, import_scores
from mia_bench.engine.plan import read_plan
from mia_bench.engine.run import read_result, rescore, rescore_tasks
from mia_bench.engine.scores import read_scores
from mia_bench.errors import ExitStatus, UnavailableError, UsageError
from mia_bench.store import Store
from mia_bench_plugins.attacks import clid_vec
from mia_bench_plugins.attacks.pia import PIA
from mia_bench_plugins.controls import blind

SAMPLES = tiny.icons(20, 20, calibration=(6, 6))
MEMBERS = {s.id for s in SAMPLES if s.member}


def luck(sample, salt=""):
    """A number that looks normal enough and is the sample's own."""
    digest = hashlib.sha256((salt + sample).encode()).digest()
    return sum(digest[:12]) / 12 / 74 - 1.72


def leaky(leak):
    """Attacks of which `leaks` tells members by so much; `steady` never does. The same sources, whatever the leak."""
    measure = lambda self, batch, target: {"luck": torch.tensor([luck(i, str(leak)) for i in batch.ids])}  # noqa: E731

    def told(self, measured, calibration):
        return [
            0.9 * luck(i) + 0.1 * v + leak * (i in MEMBERS) for i, v in zip(measured.ids, measured["luck"], strict=True)
        ]

    def steady(self, measured, calibration):
        return [0.9 * luck(i, "s") + 0.1 * v for i, v in zip(measured.ids, measured["luck"], strict=True)]

    return tiny.plugin([tiny.attack("leaks", measure, told), tiny.attack("steady", measure, steady)])


def go(folder, *modules, attacks="loss,pia", samples=SAMPLES, **options):
    tiny.go(folder, tiny.registry(*modules, samples=samples), attacks, **options)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Runs that several tests read."""
    home = tmp_path_factory.mktemp("runs")
    go(home / "first")
    go(home / "other", target="tiny:8")
    leaks = {"attacks": "leaks,steady"}
    go(home / "tight", leaky(0.0), **leaks)
    go(home / "leaky", leaky(2.0), **leaks, target="tiny:8")
    go(home / "alike", leaky(0.01), **leaks, target="tiny:8")
    return home


def by_label(found):
    return {(row.label, row.metric): row for row in found.rows}


# The same target ----------------------------------------------------------------------------------------------------


def test_a_run_agrees_with_itself_at_other_rows_and_in_other_company(home, tmp_path):
    go(tmp_path / "first", blind)
    go(tmp_path / "again", blind, attacks="pia,loss,logged", rows=7, batch=3)
    found = compare(tmp_path / "first", tmp_path / "again")
    assert found.question == "same scores" and found.status == ExitStatus.OK and not found.problem
    rows = by_label(found)
    assert {label for label, _ in rows} == {"loss", "pia", "blind", "blind@image", "blind@caption", "blind@encoder"}
    assert all(row.verdict == "same" for row in rows.values() if row.compared)
    assert rows["loss", "scores"].n == 52 and rows["pia", "scores"].moved == 0
    assert found.new == ("logged",)
    before = next(row for row in read_result(tmp_path / "first").rows if row.label == "pia").evaluation.auc.value
    assert rows["pia", "scores"].before == before


def sign(self, measured, calibration):
    return measured["loss"]


def unkeyed(self, batch, target):
    eps = torch.randn(batch.x0.shape, generator=torch.Generator().manual_seed(0))  # by place in the batch
    predicted = target.denoiser(target.schedule.noised(batch.x0, eps, 300), 300, batch.condition)
    return {"loss": power_mean(predicted - eps)}


def late(self, batch, target):
    eps = batch.eps(301)
    predicted = target.denoiser(target.schedule.noised(batch.x0, eps, 301), 301, batch.condition)
    return {"loss": power_mean(predicted - eps)}


@pytest.mark.parametrize(
    "broken", [{"score": sign}, {"measure": unkeyed}, {"measure": late}], ids=["sign", "noise", "timestep"]
)
def test_a_broken_attack_fails_by_name_and_sample(tmp_path, broken):
    go(tmp_path / "sound", tiny.plugin([tiny.attack("mine")]), attacks="mine,loss")
    go(tmp_path / "broken", tiny.plugin([tiny.attack("mine", **broken)]), attacks="mine,loss")
    found = compare(tmp_path / "sound", tmp_path / "broken")
    assert found.status == ExitStatus.REGRESSED
    (row,) = found.regressed
    assert (row.label, row.verdict) == ("mine", "moved") and row.moved > 40
    before, after = (read_scores(tmp_path / name)["mine"].by_id for name in ("sound", "broken"))
    worst = row.worst[0]
    assert (worst.before, worst.after) == (before[worst.sample], after[worst.sample])
    assert worst.times == max(one.times for one in row.worst) == row.furthest > 1
    text = "\n".join(row.lines())
    assert text.startswith("mine: moved") and worst.sample in text


def test_one_timestep_off_is_seen_where_no_noise_is_drawn(tmp_path):
    class Sound(PIA):
        meta = PIA.meta.model_copy(update={"name": "mine"})

    class Late(PIA):
        meta = Sound.meta

        def measure(self, batch, target):
            self.params = self.params.model_copy(update={"t": self.params.t + 1})
            return super().measure(batch, target)

    go(tmp_path / "sound", tiny.plugin([Sound]), attacks="mine")
    go(tmp_path / "broken", tiny.plugin([Late]), attacks="mine")
    (row,) = compare(tmp_path / "sound", tmp_path / "broken").regressed
    assert row.label == "mine" and row.furthest > 10


def edited(source, folder, change, learns=None):
    """A copy of a run with the scores of `loss` changed."""
    shutil.copytree(source, folder)
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    for row in rows:
        row["score"] = change(row["score"]) if row["attack"] == "loss" else row["score"]
    pq.write_table(pa.Table.from_pylist(rows), folder / "scores.parquet")
    plan = json.loads((folder / "run.json").read_text())
    for attack in plan["attacks"]:
        attack["learns"] = learns or attack["learns"]
    (folder / "run.json").write_text(json.dumps(plan))
    return folder


def test_the_tolerance_decides(home, tmp_path):
    step = 0.01 * np.subtract(*np.quantile(read_scores(home / "first")["loss"].values, [0.75, 0.25]))
    moved = edited(home / "first", tmp_path / "moved", lambda v: v + step)
    (row,) = compare(home / "first", moved).regressed
    assert row.label == "loss" and row.why.endswith("its own code has not changed")
    plan = (moved / "run.json").read_text().replace(plan_of(moved, "loss").definition, "other")
    (moved / "run.json").write_text(plan)
    assert compare(home / "first", moved).regressed[0].why.endswith("its code has changed")
    assert compare(home / "first", moved, Gate(tolerance=0.02)).status == ExitStatus.OK
    assert compare(home / "first", moved, Gate(attacks=("p*",))).status == ExitStatus.OK


def test_what_is_fitted_has_more_room_and_classifiers_go_by_ranks(home, tmp_path):
    assert (
        plan_of(go(tmp_path / "controlled", blind, clid_vec, attacks="loss,clid,clid-vec"), "loss").learns == "nothing"
    )
    learning = {"clid": "scale", "clid-vec": "classifier", "blind": "scale"}
    assert {label: plan_of(tmp_path / "controlled", label).learns for label in learning} == learning
    step = 0.005 * np.subtract(*np.quantile(read_scores(home / "first")["loss"].values, [0.75, 0.25]))
    for learns, change, regressed in (
        ("nothing", lambda v: v + step, True),
        ("scale", lambda v: v + step, False),
        ("scale", lambda v: v + 5 * step, True),
        ("classifier", lambda v: 2 * v + 1, False),
        ("classifier", lambda v: -v, True),
    ):
        name = f"{learns}{regressed}"
        baseline = edited(home / "first", tmp_path / f"{name}-before", lambda v: v, learns)
        current = edited(home / "first", tmp_path / f"{name}-after", change, learns)
        assert bool(compare(baseline, current).regressed) is regressed, name


def plan_of(folder, label):
    return next(a for a in read_plan(Store(folder)).attacks if a.label == label)


def test_an_attack_without_scores_is_a_regression(home, tmp_path):
    def score(self, measured, calibration):
        raise RuntimeError("out of luck")

    go(tmp_path / "sound", tiny.plugin([tiny.attack("mine")]), attacks="mine,loss")
    go(tmp_path / "broken", tiny.plugin([tiny.attack("mine", score=score)]), attacks="mine,loss")
    found = compare(tmp_path / "sound", tmp_path / "broken")
    (row,) = found.regressed
    assert (row.label, row.verdict) == ("mine", "no scores") and "out of luck" in row.why
    back = compare(tmp_path / "broken", tmp_path / "sound")
    assert back.status == ExitStatus.OK, "what the baseline did not have cannot be lost"
    assert "out of luck" in by_label(back)["mine", "scores"].why and not back.missed
    record(tmp_path / "sound", tmp_path / "slim")
    before = (tmp_path / "slim" / "results.json").read_bytes()
    with pytest.raises(UnavailableError, match=r"attack mine: it has no scores: .*out of luck"):
        record(tmp_path / "broken", tmp_path / "slim")
    assert (tmp_path / "slim" / "results.json").read_bytes() == before


@pytest.mark.parametrize("target", ["tiny", "tiny:8"])
def test_an_attack_that_is_gone_is_no_pass_unless_it_is_left_out(home, tmp_path, target):
    go(tmp_path / "fewer", attacks="loss", target=target)
    found = compare(home / "first", tmp_path / "fewer", Gate(margin=0.9))
    assert found.status == ExitStatus.NOTHING and [row.label for row in found.missed] == ["pia"]
    assert found.problem == "pia: the current run does not have it"
    for asked, status in (("loss", ExitStatus.OK), ("pia", ExitStatus.NOTHING)):
        assert compare(home / "first", tmp_path / "fewer", Gate(margin=0.9, attacks=(asked,))).status == status


def test_a_lost_sample_is_a_regression(tmp_path):
    def patchy(self, batch, target):
        loss = tiny.Logged.measure(self, batch, target)["loss"]
        lost = torch.tensor([i == SAMPLES[3].id for i in batch.ids])
        return {"loss": torch.where(lost, torch.nan, loss)}

    go(tmp_path / "sound", tiny.plugin([tiny.attack("mine")]), attacks="mine")
    for name, target in (("same", "tiny"), ("other", "tiny:8")):
        go(tmp_path / name, tiny.plugin([tiny.attack("mine", patchy)]), attacks="mine", target=target)
        row = next(r for r in compare(tmp_path / "sound", tmp_path / name).rows if r.label == "mine")
        assert row.verdict == "no scores" and SAMPLES[3].id in row.why


def test_what_is_defined_otherwise_is_not_compared(home, tmp_path):
    go(tmp_path / "params", options={"pia": {"t": 300}})
    go(tmp_path / "version", tiny.plugin([tiny.attack("mine", meta={"version": 2})]), attacks="mine,loss")
    go(tmp_path / "before", tiny.plugin([tiny.attack("mine")]), attacks="mine,loss")
    for baseline, current, label, why in (
        (home / "first", "params", "pia", "now 300"),
        (tmp_path / "before", "version", "mine", "version 1, now 2"),
    ):
        found = compare(baseline, tmp_path / current)
        row = by_label(found)[label, "scores"]
        assert row.verdict == "not compared" and row.why.startswith("defined otherwise") and why in row.why
        assert found.status == ExitStatus.NOTHING and any(r.verdict == "same" for r in found.rows)
        assert found.problem == f"{label}: {row.why}" and "--attacks" in found.fix
        assert compare(baseline, tmp_path / current, Gate(attacks=("lo*",))).status == ExitStatus.OK
        alone = compare(baseline, tmp_path / current, Gate(attacks=(label,)))
        assert alone.status == ExitStatus.NOTHING and why in alone.problem and "--update" in alone.fix


def test_what_is_scored_or_calibrated_otherwise_later_is_seen(home, tmp_path):
    """`score` leaves the plan as it was; the results say what the scores are."""
    go(tmp_path / "own", attacks="clid,loss")
    shutil.copytree(tmp_path / "own", tmp_path / "again")
    made = tiny.registry(samples=SAMPLES)
    rescore(made, tmp_path / "again", {"clid": {"alpha": 0.0}})
    row = by_label(compare(tmp_path / "own", tmp_path / "again"))["clid", "scores"]
    assert (row.verdict, row.moved) == ("not compared", 0) and row.why == "defined otherwise (alpha=None, now 0.0)"
    shadow = go(tmp_path / "shadow", attacks="clid", target="tiny:8")
    rescore_tasks(made, tmp_path / "again", {}, calibrate_on=shadow)
    found = compare(tmp_path / "own", tmp_path / "again")
    assert found.status == ExitStatus.NOTHING and not found.rows
    assert found.problem == f"other calibration: the run's own set in the baseline, run {shadow} on tiny:8 now"
    shutil.copytree(shadow, tmp_path / "renamed")
    go(tmp_path / "alike", attacks="clid,loss", calibrate_on=tmp_path / "renamed")
    assert not compare(tmp_path / "again", tmp_path / "alike").problem


# Another target -----------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_leaks_more_fails_on_a_rise_alone(home):
    baseline, current = home / "tight", home / "leaky"
    found = compare(baseline, current)
    assert found.question == "leakage" and found.status == ExitStatus.REGRESSED
    rows = by_label(found)
    assert set(rows) == {("leaks", "auc"), ("steady", "auc")}, "controls never ask the target"
    rose, held = rows["leaks", "auc"], rows["steady", "auc"]
    assert (rose.verdict, held.verdict) == ("rose", "held")
    assert rose.tested.change.value > 0.3 and rose.tested.adjusted >= rose.tested.p_value
    assert held.tested.detectable > 0 and f"{held.tested.detectable:.3f}" in held.why
    evaluated = {row.label: row.evaluation.auc.value for row in read_result(current).rows if row.evaluation}
    assert rose.after == pytest.approx(evaluated["leaks"])
    assert compare(baseline, current, Gate(fail_on="drop")).status == ExitStatus.OK
    assert by_label(compare(baseline, current, Gate(fail_on="both")))["leaks", "auc"].verdict == "rose"
    assert compare(baseline, current, Gate(margin=0.6)).status == ExitStatus.OK
    assert compare(current, baseline).status == ExitStatus.OK
    back = by_label(compare(current, baseline, Gate(fail_on="drop")))
    assert back["leaks", "auc"].verdict == "dropped"
    assert compare(home / "tight", home / "alike").status == ExitStatus.OK


def test_an_undefined_metric_is_no_pass(home):
    both = compare(home / "tight", home / "alike", Gate(metrics=("auc", "tpr_at_1")))
    assert both.status == ExitStatus.NOTHING and any(row.verdict == "held" for row in both.rows)
    row = by_label(both)["leaks", "tpr_at_1"]
    assert row.verdict == "not compared" and "20 non-members" in row.why
    alone = compare(home / "tight", home / "alike", Gate(metrics=("tpr_at_1",)))
    assert alone.status == ExitStatus.NOTHING and "20 non-members" in alone.problem


def test_the_family_is_all_attacks_and_metrics(home):
    alone = by_label(compare(home / "tight", home / "alike", Gate(attacks=("leaks",))))["leaks", "auc"].tested
    both = by_label(compare(home / "tight", home / "alike"))["leaks", "auc"].tested
    assert both.detectable > alone.detectable and both.p_value == alone.p_value == alone.adjusted


# Neither ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"seed": 1}, "other seed: 0 in the baseline, 1 now"),
        ({"seed": 1, "target": "tiny:8"}, "other seed"),
        ({"limit": 9}, "other samples: 18 in both, of 40 and 18"),
        ({"captions": "null", "attacks": "loss"}, "other captions: true in the baseline, null now"),
        ({"independent_noise": True}, "other independent noise"),
        ({"samples": [replace(s, member=not s.member) for s in SAMPLES]}, "other members"),
        ({"samples": [replace(s, caption="other") for s in SAMPLES]}, "image or caption of"),
        ({"samples": SAMPLES[:48] + tiny.icons(20, 20, (6, 5))[48:]}, "other samples beside the audited ones"),
    ],
)
def test_runs_that_answer_neither_question(home, tmp_path, options, why):
    found = compare(home / "first", go(tmp_path / "now", **options))
    assert found.problem.startswith(why) and not found.rows
    assert found.status == ExitStatus.NOTHING
    assert str(tmp_path / "now") in found.fix and found.fix.endswith("--update`")


def test_no_common_attack_is_nothing(home, tmp_path):
    go(tmp_path / "now", attacks="logged")
    found = compare(home / "first", tmp_path / "now", Gate(attacks=("loss",)))
    assert found.status == ExitStatus.NOTHING and "the current run does not have it" in found.problem
    assert "no attack of the baseline" in compare(home / "first", tmp_path / "now", Gate(attacks=("wen",))).problem


def test_what_cannot_be_read_is_an_error(home, tmp_path):
    with pytest.raises(UnavailableError, match=r"it has no results\.json|no such|it has no run\.json"):
        compare(tmp_path / "nowhere", home / "first")
    shutil.copytree(home / "first", tmp_path / "cut")
    (tmp_path / "cut" / "results.json").unlink()
    with pytest.raises(UnavailableError, match="unfinished"):
        compare(home / "first", tmp_path / "cut")
    with pytest.raises(UsageError, match="holds no scores"):
        compare(home / "first" / "results.json", home / "first")
    with pytest.raises(UsageError, match="metric 'acu'"):
        Gate(metrics=("acu",))


def without_row(folder):
    path = folder / "results.json"
    record = json.loads(path.read_text())
    record["rows"] = [row for row in record["rows"] if row["label"] != "pia"]
    path.write_text(json.dumps(record))


def without_scores(folder):
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    pq.write_table(pa.Table.from_pylist([r for r in rows if r["attack"] != "pia"]), folder / "scores.parquet")


def without_plan(folder):
    plan = json.loads((folder / "run.json").read_text())
    plan["attacks"] = [a for a in plan["attacks"] if a["label"] != "pia"]
    (folder / "run.json").write_text(json.dumps(plan))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (without_row, "its results.json has no row of pia"),
        (without_scores, "its results have pia, its scores have not"),
        (without_plan, "its results.json has pia, its plan has not"),
    ],
)
def test_files_of_different_runs_are_a_damaged_run(home, tmp_path, damage, why):
    shutil.copytree(home / "first", tmp_path / "mixed")
    record(home / "first", tmp_path / "slim")
    for name, fix in (("mixed", f"`mia-bench score {tmp_path / 'mixed'}`"), ("slim", "restore the baseline")):
        damage(tmp_path / name)
        for sides in ((tmp_path / name, home / "first"), (home / "first", tmp_path / name)):
            with pytest.raises(UnavailableError, match=why) as error:
                compare(*sides)
            assert name in error.value.what and fix in error.value.fix
    with pytest.raises(UnavailableError, match=why):
        record(tmp_path / "mixed", tmp_path / "new")


@pytest.mark.parametrize(
    ("now", "why"),
    [
        ({"target": "sd-1.4", "dataset": "set"}, ""),
        ({"dataset": "set"}, "that nobody named"),
        ({"target": "sd-1.5", "dataset": "set"}, "another target: sd-1.4 in the baseline, sd-1.5 now"),
        ({"target": "sd-1.4", "dataset": "other"}, "another dataset: set in the baseline, other now"),
    ],
)
def test_imported_scores_are_of_one_target_only_if_they_are_called_so(tmp_path, now, why):
    def imported(name, add, **named):
        rows = "".join(f"{i},{i % 2},{i * 7 % 11 + add}\n" for i in range(20))
        (tmp_path / f"{name}.csv").write_text("id,label,score\n" + rows)
        files = (Given.parse(f"loss={tmp_path / name}.csv"),)
        import_scores(ImportOptions(files, tmp_path / name, **named))
        return tmp_path / name

    before = imported("before", 0, target="sd-1.4", dataset="set")
    found = compare(before, imported("after", 1, **now))
    if why:
        assert found.status == ExitStatus.NOTHING and why in found.problem and not found.rows
        assert compare(tmp_path / "after", before).status == ExitStatus.NOTHING
    else:
        (row,) = found.regressed
        assert row.verdict == "moved" and "code" not in row.why


# Baselines ----------------------------------------------------------------------------------------------------------


def test_a_baseline_is_a_run_without_measurements(home, tmp_path):
    slim = tmp_path / "deep" / "slim"
    record(home / "first", slim)
    assert sorted(p.name for p in slim.iterdir()) == sorted(FILES)
    assert compare(slim, home / "first").status == ExitStatus.OK
    assert compare(slim, home / "other").question == "leakage"
    assert read_result(slim) == read_result(home / "first")
    record(home / "other", slim)
    assert compare(slim, home / "other").question == "same scores"
    for target in (home / "first", home / "tight"):
        with pytest.raises(UsageError, match=r"the run itself|would be lost"):
            record(home / "first", target)
    with pytest.raises(UnavailableError):
        record(tmp_path, slim)
    assert compare(slim, home / "other").status == ExitStatus.OK, "a bad run cost no baseline"


def test_scoring_a_baseline_again_costs_it_nothing(home, tmp_path):
    record(home / "first", tmp_path / "slim")
    before = {name: (tmp_path / "slim" / name).read_bytes() for name in FILES}
    with pytest.raises(UnavailableError, match="no measurements"):
        rescore(tiny.registry(samples=SAMPLES), tmp_path / "slim", {})
    assert {name: (tmp_path / "slim" / name).read_bytes() for name in FILES} == before
