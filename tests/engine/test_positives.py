"""Memorisation: the same scores compared anew; nothing is measured again, nothing of the membership audit changes."""

from dataclasses import replace

import numpy as np
import pytest
import tiny

from mia_bench.engine.mirror import mirror
from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.run import read_result, rescore_tasks, run_tasks
from mia_bench.errors import NothingError, UsageError
from mia_bench.report.leaderboard import recorded
from mia_bench.report.table import exit_status
from mia_bench.report.text import json_text
from mia_bench.report.verdicts import blind_value
from mia_bench.result import MEMBERSHIP, Task
from mia_bench_plugins.controls import blind

OTHER_MEMBERS = Task(positives="memorised", negatives="members")
NONMEMBERS = Task(positives="memorised", negatives="nonmembers")


def samples(members=12, others=12, memorised=11, calibration=(4, 4), **changes):
    plain = tiny.icons(members + memorised, others, calibration)
    kept, seen = plain[memorised:], plain[:memorised]
    return [*kept, *(replace(s, split="memorised", **changes) for s in seen)]


class Looks(blind.Blind):
    """Blind without presets: these tests need one control, and a cheap one."""

    presets = {}


def go(folder, given, *controls, attacks="loss,clid", **options):
    """All results of a run; `loss` of every sample is on a list of what was measured."""
    log = []

    def measure(self, batch, target):
        log.extend(batch.ids)
        return tiny.Logged.measure(self, batch, target)

    made = tiny.registry(tiny.plugin([tiny.attack("counted", measure=measure), *(controls or [Looks])]), samples=given)
    wanted = {"dataset": "given", "threads": 1, "rows": 4, "batch": 8, "attacks": f"counted,{attacks}"}
    return run_tasks(made, RunOptions(out=folder, **wanted, **options)), made, log


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A membership run, then the same with memorised images as positives."""
    folder = tmp_path_factory.mktemp("run")
    (before,), _, first = go(folder, samples())
    files = {name: (folder / name).read_bytes() for name in ("results.json", "scores.parquet")}
    after, made, second = go(folder, samples(), positives="memorised")
    assert len(first) == len(samples()) and not second, "measured once"
    assert files == {name: (folder / name).read_bytes() for name in files}
    return folder, before, after, made


def test_memorised_images_are_compared_with_other_members_first_and_then_with_nonmembers(both):
    _, _, after, _ = both
    assert [result.task for result in after] == [OTHER_MEMBERS, NONMEMBERS]
    for result in after:
        assert (result.n_members, result.n_nonmembers, result.n_unknown, result.n_left_out) == (11, 12, 0, 0)
        assert {(row.evaluation.n_members, row.evaluation.n_nonmembers) for row in result.rows} == {(11, 12)}
    assert exit_status(*after) == 0


def test_the_figures_are_those_of_the_stored_scores(both):
    folder, _, after, _ = both
    scores = tiny.scores(folder)
    given = samples()
    for result in after:
        for label in ("loss", "clid", "counted"):
            positive = [scores[label, s.id] for s in given if s.split == "memorised"]
            member = result.task == OTHER_MEMBERS
            negative = [scores[label, s.id] for s in given if s.split == "audit" and s.member == member]
            above = np.subtract.outer(positive, negative)
            auc = (above > 0).mean() + (above == 0).mean() / 2
            assert tiny.row(result, label).evaluation.auc.value == pytest.approx(auc)


def test_the_membership_result_is_kept_and_says_what_it_is(both):
    folder, before, after, made = both
    assert read_result(folder) == before and before.task == MEMBERSHIP
    assert (before.n_members, before.n_nonmembers) == (12, 12)
    assert {row.n for row in before.rows} == {24}
    assert rescore_tasks(made, folder, {}, "memorised") == after
    assert rescore_tasks(made, folder, {}) == (before,) and read_result(folder) == before


def test_a_result_from_before_there_were_tasks_is_of_membership(both):
    content = both[1].model_dump(mode="json")
    del content["task"]
    assert type(both[1]).model_validate(content) == both[1]


def test_one_comparison_can_be_named(both):
    folder, _, after, made = both
    assert rescore_tasks(made, folder, {}, "memorised", "nonmembers") == after[1:]
    assert rescore_tasks(made, folder, {}, "memorised", "members") == after[:1]


def test_controls_are_cross_validated_on_the_samples_that_are_compared(tmp_path):
    seen = []

    class Spy(Looks):
        def score(self, measured, calibration):
            seen.append((dict(zip(measured.ids, measured.member.tolist(), strict=True)), measured.classes))
            return super().score(measured, calibration)

    given = samples()
    results, _, _ = go(tmp_path, given, Spy, positives="memorised")
    memorised = {s.id for s in given if s.split == "memorised"}
    sides = {m: {s.id for s in given if s.split == "audit" and s.member == m} for m in (True, False)}
    assert [labels for labels, _ in seen] == [
        {i: i in sides[True] for i in sides[True] | sides[False]},
        {i: i in memorised for i in memorised | sides[True]},
        {i: i in memorised for i in memorised | sides[False]},
    ]
    assert [classes[1] for _, classes in seen] == ["non-members", "other members", "non-members"]
    for result in results:
        assert tiny.row(result, "blind").n == 23
        assert tiny.row(result, "loss").verdicts["auc"].blind is not None


def test_a_control_that_finds_memorised_images_by_their_looks_is_what_an_attack_must_beat(tmp_path):
    def dark():
        from PIL import Image

        return Image.new("RGB", (32, 32), "black")

    results, _, _ = go(tmp_path, samples(image=dark, content="dark"), positives="memorised")
    for result in results:
        assert tiny.row(result, "blind").evaluation.auc.value > 0.95
        assert blind_value(tiny.row(result, "loss")) > 0.95


def test_no_threshold_is_carried_over_and_what_was_fitted_stays(both):
    _, before, after, _ = both
    assert tiny.row(before, "loss").evaluation.asr_calibrated.value is not None
    for result in after:
        calibrated = tiny.row(result, "loss").evaluation.asr_calibrated
        assert calibrated.value is None and "says nothing about memorisation" in calibrated.reason
        assert tiny.row(result, "clid").fitted == tiny.row(before, "clid").fitted


def test_reasons_speak_of_the_samples_compared(tmp_path):
    results, _, _ = go(tmp_path, samples(memorised=3), positives="memorised")
    for result, negatives in zip(results, ("other members", "non-members"), strict=True):
        evaluation = tiny.row(result, "loss").evaluation
        assert f"of 12 {negatives} is" in evaluation.tpr_at_1.reason
        assert "of 3 memorised images is" in evaluation.tnr_at_1.reason
        assert tiny.row(result, "blind").reason == "control blind: 3 groups of memorised images, 10 needed"


def test_a_fault_of_a_control_costs_only_its_own_task(tmp_path):
    class Picky(Looks):
        def score(self, measured, calibration):
            if measured.classes[1] == "other members":
                raise RuntimeError("no")
            return super().score(measured, calibration)

    results, _, _ = go(tmp_path, samples(), Picky, positives="memorised")
    assert [tiny.row(result, "blind").status for result in results] == ["failed", "ok"]
    assert tiny.row(read_result(tmp_path), "blind").status == "ok"
    assert exit_status(*results) == 4 and exit_status(*reversed(results)) == 4


def test_what_cannot_be_compared_is_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(NothingError, match="dataset given has no memorised images") as caught:
        go(tmp_path, samples(memorised=0), positives="memorised")
    assert "--positives" in caught.value.fix
    with pytest.raises(UsageError, match="members are the positives"):
        go(tmp_path, samples(), negatives="members")
    with pytest.raises(NothingError, match="no non-members to compare"):
        go(tmp_path, samples(others=0), positives="memorised", negatives="nonmembers")
    assert not list(tmp_path.iterdir())


def test_without_nonmembers_the_comparison_with_members_is_left(tmp_path):
    results, _, _ = go(tmp_path, samples(others=0), positives="memorised")
    assert [result.task for result in results] == [OTHER_MEMBERS]
    assert tiny.row(results[0], "loss").evaluation.auc.value is not None
    assert exit_status(read_result(tmp_path)) == 5, "membership itself cannot be audited there"


def test_leaderboard_and_mirror_know_membership_alone(both, tmp_path):
    folder, before, after, _ = both
    for name, result in (("membership", before), ("memorised", after[0])):
        (tmp_path / f"{name}.json").write_text(json_text(result.model_dump(mode="json")))
    (tmp_path / "both.json").write_text(json_text([result.model_dump(mode="json") for result in after]))
    assert list(recorded(tmp_path)) == ["membership.json"]
    kept = (folder / "results.json").read_text()
    (folder / "results.json").write_text(json_text(after[0].model_dump(mode="json")))
    with pytest.raises(UsageError, match="compares memorised images with other members"):
        mirror(folder, folder)
    (folder / "results.json").write_text(kept)
