"""Scoring: cheap, repeatable without a target, and honest about what it could not compare."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny

from mia_bench import Access, Control, Meta, Scores
from mia_bench.engine.run import read_result, rescore
from mia_bench.errors import ExitStatus, UnavailableError, UsageError
from mia_bench.report.table import exit_status


def scoring_with(score, name="mine", **body):
    return tiny.registry(tiny.plugin([tiny.attack(name, score=score, **body)]))


def content(folder):
    return (folder / "scores.parquet").read_bytes()


# What is compared -----------------------------------------------------------------------------------------------


def test_scores_table_holds_every_sample_once_per_attack(tmp_path):
    made = tiny.registry(samples=tiny.icons(4, 5, (3, 2), unknown=2))
    result = tiny.go(tmp_path, made, attacks="loss,logged@double")
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table.column_names == ["attack", "preset", "sample_id", "split", "label", "score"]
    rows = table.to_pylist()
    assert len(rows) == 2 * 16
    assert {(r["attack"], r["preset"]) for r in rows} == {("loss", ""), ("logged", "double")}
    kinds = [(r["split"], r["label"]) for r in rows if r["attack"] == "loss"]
    assert [kinds.count(k) for k in (("audit", True), ("audit", False), ("audit", None))] == [4, 5, 2]
    assert [kinds.count(k) for k in (("calibration", True), ("calibration", False))] == [3, 2]
    assert {r.n for r in result.rows} == {9}, "only audit samples of known membership are compared"
    assert (result.n_members, result.n_nonmembers, result.n_unknown) == (4, 5, 2)


def test_memorised_samples_are_scored_but_neither_compared_nor_calibrated_on(tmp_path):
    plain = tiny.icons(8, 8, (3, 3))
    extra = [replace(s, id=f"m{s.id}", split="memorised", member=True) for s in plain[:4]]
    seen = []

    def score(self, measured, calibration):
        seen.append(calibration.ids)
        return -measured["loss"]

    results = [
        tiny.go(
            tmp_path / str(len(samples)),
            tiny.registry(tiny.plugin([tiny.attack("mine", score=score)]), samples=samples),
            attacks="mine,clid",
        )
        for samples in (plain, [*plain, *extra])
    ]
    rows = pq.read_table(tmp_path / "26" / "scores.parquet").to_pylist()
    assert sum(r["split"] == "memorised" for r in rows) == 2 * 4
    assert not {i for ids in seen for i in ids} & {s.id for s in extra}
    for before, after in zip(results[0].rows, results[1].rows, strict=True):
        assert (before.label, before.n, before.evaluation) == (after.label, after.n, after.evaluation)
    assert results[1].n_members == 8


@pytest.mark.parametrize("calibration", [(0, 0), (3, 0)])
def test_memorised_samples_are_kept_without_a_calibration_set(tmp_path, calibration):
    plain = tiny.icons(6, 6, calibration)
    extra = [replace(s, id=f"m{s.id}", split="memorised") for s in plain[:3]]
    result = tiny.go(tmp_path, tiny.registry(samples=[*plain, *extra]), attacks="loss,clid")
    assert result.calibration
    rows = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    for label in ("loss", "clid"):
        ids = {r["sample_id"] for r in rows if r["attack"] == label and r["split"] == "memorised"}
        assert ids == {s.id for s in extra}
    assert {r["split"] for r in rows} == {"audit", "memorised"}
    assert {r.n for r in result.rows} == {12} and not result.failures


def test_an_attack_that_changes_its_measurements_fails_and_its_presets_do_not(tmp_path):
    def score(self, measured, calibration):
        values = measured["loss"]
        if self.params.scale == 1:
            values *= -1
        return values

    made = tiny.registry(tiny.plugin([tiny.attack("mine", score=score)]))
    result = tiny.go(tmp_path, made, attacks="mine,mine@double")
    assert "read-only" in tiny.row(result, "mine").reason
    own = tiny.go(tmp_path / "own", made, attacks="mine@double")
    assert tiny.row(result, "mine@double").evaluation == tiny.row(own, "mine@double").evaluation


def test_higher_means_member(tmp_path):
    samples = tiny.icons(6, 6)
    members = {s.id for s in samples if s.member}

    def score(self, measured, calibration):
        return np.array([float(i in members) for i in measured.ids])

    result = tiny.go(tmp_path, scoring_with(score), attacks="mine")
    assert result.rows[0].evaluation.auc.value == 1


@pytest.mark.parametrize(("members", "others", "unknown"), [(6, 0, 0), (0, 6, 0), (0, 0, 6), (6, 0, 3)])
def test_without_both_classes_scores_are_written_and_nothing_is_compared(tmp_path, members, others, unknown):
    made = tiny.registry(samples=tiny.icons(members, others, unknown=unknown))
    result = tiny.go(tmp_path, made, attacks="loss,clid")
    assert exit_status(result) == ExitStatus.NOTHING
    assert len(tiny.scores(tmp_path)) == 2 * (members + others + unknown)
    for row in result.rows:
        assert (row.status, row.evaluation.auc.value) == ("ok", None)
        assert row.evaluation.auc.reason
    assert read_result(tmp_path) == result


# Calibration ----------------------------------------------------------------------------------------------------


def test_a_usable_calibration_set_is_used(tmp_path):
    made = tiny.registry(samples=tiny.icons(8, 8, (8, 8)))
    result = tiny.go(tmp_path, made, attacks="clid,loss")
    clid = tiny.row(result, "clid")
    assert result.calibration is None
    assert clid.tags == ()
    assert clid.fitted["alpha"] in np.linspace(0, 1, 11)
    for row in result.rows:
        calibrated = row.evaluation.asr_calibrated
        assert calibrated.value is not None
        assert calibrated.threshold is not None
        assert calibrated.value <= row.evaluation.asr_oracle.value


def test_the_threshold_and_alpha_come_from_the_calibration_set_alone(tmp_path):
    samples = tiny.icons(8, 8, (8, 8))
    flipped = [replace(s, member=not s.member) if s.split == "audit" else s for s in samples]
    result = tiny.go(tmp_path / "a", tiny.registry(samples=samples), attacks="clid,loss")
    other = tiny.go(tmp_path / "b", tiny.registry(samples=flipped), attacks="clid,loss")
    assert tiny.scores(tmp_path / "a") == tiny.scores(tmp_path / "b")
    for one, two in zip(result.rows, other.rows, strict=True):
        assert one.fitted == two.fitted
        assert one.evaluation.asr_calibrated.threshold == two.evaluation.asr_calibrated.threshold


def test_without_calibration_the_row_says_so(tmp_path):
    result = tiny.go(tmp_path, attacks="clid,loss")
    clid = tiny.row(result, "clid")
    assert (clid.tags, clid.fitted) == (("transductive",), {"alpha": 0.9})
    assert "no labelled calibration set" in clid.evaluation.asr_calibrated.reason
    assert tiny.row(result, "loss").tags == ()


def test_calibration_hands_an_attack_labels_of_its_samples_only(tmp_path):
    seen = {}

    def score(self, measured, calibration):
        seen.update(measured=measured, calibration=calibration)
        return measured["loss"]

    samples = tiny.icons(4, 4, (3, 2))
    made = tiny.registry(tiny.plugin([tiny.attack("mine", score=score)]), samples=samples)
    tiny.go(tmp_path, made, attacks="mine")
    calibration = {s.id: s.member for s in samples if s.split == "calibration"}
    found = seen["calibration"]
    assert dict(zip(found.ids, found.member.tolist(), strict=True)) == calibration
    assert not found.audit.any()
    assert seen["measured"].member is None
    assert len(seen["measured"].ids) == 13


# Scores that break ----------------------------------------------------------------------------------------------


def raising(self, measured, calibration):
    raise LookupError("no such term")


WRONG = {
    "raises": (raising, "LookupError: no such term"),
    "exits": (lambda self, measured, calibration: exit(0), "SystemExit"),
    "nothing": (lambda self, measured, calibration: None, "failed"),
    "short": (lambda self, measured, calibration: measured["loss"][:3], r"shape (3,) for 12 samples"),
    "wide": (lambda self, measured, calibration: np.zeros((12, 2)), "shape (12, 2) for 12 samples"),
    "nan": (lambda self, measured, calibration: measured["loss"] * np.nan, "NaN for 12 samples"),
    "text": (lambda self, measured, calibration: ["x"] * 12, "could not convert"),
    "fitted nan": (
        lambda self, measured, calibration: Scores(measured["loss"], fitted={"alpha": np.nan}),
        "not finite",
    ),
    "fitted array": (lambda self, measured, calibration: Scores(measured["loss"], fitted={"w": np.ones(3)}), "Error"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_broken_score_costs_only_its_row(tmp_path, fault):
    score, said = WRONG[fault]
    tiny.go(tmp_path / "good")
    result = tiny.go(tmp_path / "bad", scoring_with(score), attacks="mine,loss,pia")
    mine = tiny.row(result, "mine")
    assert mine.status == "failed"
    assert mine.reason.startswith("score failed: ") and said in mine.reason
    assert exit_status(result) == ExitStatus.BROKEN_PLUGIN
    assert tiny.scores(tmp_path / "bad") == tiny.scores(tmp_path / "good")


@pytest.mark.parametrize("value", [0.0, np.inf, -np.inf])
def test_constant_and_infinite_scores_give_a_result_that_can_be_read_back(tmp_path, value):
    def score(self, measured, calibration):
        return np.where(np.arange(len(measured.ids)) % 3, value, 0.5 if np.isinf(value) else value)

    result = tiny.go(tmp_path, scoring_with(score), attacks="mine")
    assert result.rows[0].status == "ok"
    assert read_result(tmp_path) == result
    json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)


# Again, without a target ----------------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path):
    tiny.go(tmp_path, attacks="clid,loss,pia")
    return tmp_path


@pytest.fixture
def no_target():
    """The same plugins, but the target is gone."""
    made = tiny.registry()
    del made.targets["tiny"], made.datasets["given"]
    return made


def test_scoring_again_needs_no_target_and_gives_the_same(finished, no_target):
    before, result = content(finished), read_result(finished)
    assert rescore(no_target, finished, {}) == result
    assert content(finished) == before


def test_scoring_again_replaces_a_damaged_result(finished, no_target):
    result = read_result(finished)
    (finished / "results.json").write_text("{")
    with pytest.raises(UnavailableError, match="not JSON") as caught:
        read_result(finished)
    assert f"`mia-bench score {finished}` writes it anew" in caught.value.fix
    assert rescore(no_target, finished, {}) == result == read_result(finished)


def test_a_scoring_parameter_changes_scores_without_measuring(finished, no_target):
    before = tiny.scores(finished)
    result = rescore(no_target, finished, {"clid": {"alpha": 0.5}})
    after = tiny.scores(finished)
    assert {label for (label, i), v in after.items() if before[label, i] != v} == {"clid"}
    assert tiny.row(result, "clid").params["alpha"] == 0.5
    tiny.go(finished / "new", attacks="clid,loss,pia", options={"clid": {"alpha": 0.5}})
    assert tiny.scores(finished / "new") == after, "as a run with that option scores"
    rescore(no_target, finished, {})
    assert tiny.scores(finished) == before


def test_what_cannot_be_rescored_is_refused_and_nothing_is_lost(finished, no_target):
    before = content(finished)
    for options, said in (
        ({"clid": {"t": [1]}}, "changes what is measured"),
        ({"clid": {"alpha": 2}}, "less than or equal to 1"),
        ({"clid": {"alpa": 0.5}}, "did you mean alpha"),
        ({"mc": {"t": [1]}}, "no such attack"),
    ):
        with pytest.raises(UsageError, match=said):
            rescore(no_target, finished, options)
    assert content(finished) == before


def test_folders_that_hold_no_run(tmp_path, no_target):
    with pytest.raises(UnavailableError, match=r"no run\.json"):
        rescore(no_target, tmp_path, {})
    with pytest.raises(UnavailableError, match=r"no results\.json"):
        read_result(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "run.json").write_text('{"schema_version": 99}')
    with pytest.raises(UnavailableError, match="not a plan of this version"):
        rescore(no_target, tmp_path, {})


def test_samples_left_out_stay_listed_when_scored_again(tmp_path):
    def image():
        raise OSError("truncated")

    samples = tiny.icons(6, 6)
    bad = replace(samples[2], image=image)
    made = tiny.registry(samples=[*samples[:2], bad, *samples[3:]])
    first = tiny.go(tmp_path, made, attacks="clid,loss")
    again = rescore(made, tmp_path, {})
    assert {f.sample for f in first.failures} == {f.sample for f in again.failures} == {bad.id}
    assert exit_status(again) == ExitStatus.UNAVAILABLE
    assert [r.n for r in again.rows] == [11, 11]


def test_calibration_samples_that_cannot_be_measured_are_said_to_be_the_reason(tmp_path):
    samples = tiny.icons(6, 6, calibration=(3, 3))
    bare = [replace(s, caption=None) if s.split == "calibration" and s.member else s for s in samples]
    result = tiny.go(tmp_path, tiny.registry(samples=bare), attacks="clid,loss")
    clid, loss = tiny.row(result, "clid"), tiny.row(result, "loss")
    assert clid.status == "ok" and "transductive" in clid.tags
    assert "no calibration members" in clid.evaluation.asr_calibrated.reason
    assert loss.evaluation.asr_calibrated.value is not None


def test_a_failed_control_fails_the_run(tmp_path):
    class Unfit(Control):
        meta = Meta(name="unfit", summary="fails", paper="none", access=Access.NONE, needs=frozenset())

        def measure(self, batch, target):
            return {"x": np.ones(len(batch))}

        def score(self, measured, calibration):
            raise RuntimeError("no")

    result = tiny.go(tmp_path, tiny.registry(tiny.plugin([Unfit])), attacks="loss")
    assert tiny.row(result, "unfit").status == "failed" and exit_status(result) == ExitStatus.BROKEN_PLUGIN


def test_parameters_other_than_the_presets_are_shown(tmp_path):
    result = tiny.go(tmp_path, attacks="pia,pia@t400", options={"pia": {"t": 300}})
    assert tiny.row(result, "pia").changed == ("t",) and tiny.row(result, "pia@t400").changed == ()
