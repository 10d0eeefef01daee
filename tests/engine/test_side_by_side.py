"""Runs beside each other: paired where the samples are the same, and said where they are not."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tiny

from mia_bench.engine.runs import list_runs
from mia_bench.engine.scores import read_scores
from mia_bench.engine.side_by_side import side_by_side
from mia_bench.errors import NothingError
from mia_bench.metrics import paired_delong
from mia_bench.metrics.holm import holm

SAMPLES = tiny.icons(20, 20, calibration=(6, 6))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """name -> folder."""
    home = tmp_path_factory.mktemp("runs")
    made = tiny.registry(samples=SAMPLES)
    swapped = [replace(s, member=not s.member) if i < 3 else s for i, s in enumerate(SAMPLES)]
    recaptioned = [replace(s, caption="other") for s in SAMPLES]
    for name, registry, options in (
        ("first", made, {}),
        ("other", made, {"target": "tiny:8", "options": {"pia": {"t": 300}}}),
        ("fewer", made, {"limit": 9}),
        ("null", made, {"captions": "null"}),
        ("swapped", tiny.registry(samples=swapped), {}),
        ("recaptioned", tiny.registry(samples=recaptioned), {}),
    ):
        tiny.go(home / name, registry, "loss,pia" if name != "null" else "loss", **options)
    return {path.name: path for path in home.iterdir()}


def test_differences_are_paired_on_the_audit_samples(runs):
    found = side_by_side([runs["first"], runs["other"]])
    assert found.unpaired == ("",)
    first, other = read_scores(runs["first"]), read_scores(runs["other"])
    p_values = []
    for row in found.rows:
        (d,) = row.differences
        ids = [i for i, s in zip(first[row.label].ids, first[row.label].split, strict=True) if s == "audit"]
        member = {i: m for i, m in zip(first[row.label].ids, first[row.label].member, strict=True)}
        scores = [[run[row.label].by_id[i] for i in ids] for run in (other, first)]
        expected = paired_delong(*scores, [member[i] for i in ids])
        assert d.n == 40
        assert (d.value, d.low, d.high, d.p_value) == pytest.approx(
            (expected.difference.value, expected.difference.low, expected.difference.high, expected.p_value)
        )
        aucs = [r.evaluation.auc.value for r in row.rows]
        assert d.value == pytest.approx(aucs[1] - aucs[0])
        p_values.append(d.p_value)
    assert [row.differences[0].adjusted for row in found.rows] == pytest.approx(holm(p_values))
    assert {row.label: row.differences[0].note for row in found.rows} == {"loss": "", "pia": "other parameters"}
    assert np.any([row.differences[0].value != 0 for row in found.rows])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("fewer", "other samples: 18 in both, of 40 and 18"),
        ("swapped", "other members: 3 samples"),
        ("recaptioned", "image or caption of"),
    ],
)
def test_other_samples_are_not_paired_and_it_is_said(runs, name, why):
    found = side_by_side([runs["first"], runs[name]])
    assert found.unpaired[0].startswith(why)
    assert all(d.value is None and d.reason == found.unpaired[0] for row in found.rows for d in row.differences)
    assert all(row.rows[1].evaluation.auc.value is not None for row in found.rows), "both are shown all the same"


def test_other_captions_on_purpose_are_paired(runs):
    found = side_by_side([runs["first"], runs["null"]])
    assert found.unpaired == ("",)
    by_label = {row.label: row for row in found.rows}
    assert by_label["loss"].differences[0].value is not None
    assert by_label["pia"].rows[1] is None and by_label["pia"].differences[0].reason == "not scored in both"


def test_a_results_file_is_shown_unpaired(runs, tmp_path):
    alone = tmp_path / "alone.json"
    alone.write_bytes((runs["other"] / "results.json").read_bytes())
    found = side_by_side([runs["first"], alone])
    assert "a results file holds no scores" in found.unpaired[0]
    json.dumps(found.to_json(), allow_nan=False, default=str)


def test_runs_without_a_common_attack_are_nothing_to_compare(runs, tmp_path):
    tiny.go(tmp_path / "else", tiny.registry(samples=SAMPLES), "logged")
    with pytest.raises(NothingError):
        side_by_side([runs["null"], tmp_path / "else"])


def test_runs_are_listed_with_how_far_they_have_come(runs, tmp_path):
    home = tmp_path / "runs"
    for name in ("first", "fewer", "null"):
        shutil.copytree(runs[name], home / "deep" / name)
    (home / "deep" / "fewer" / "results.json").unlink()
    (home / "deep" / "null" / "run.json").write_text("{")
    listed = {run.folder.name: run for run in list_runs(home)}
    assert [*listed] == ["fewer", "first", "null"]
    first = listed["first"]
    assert (first.dataset, first.target, first.seed, first.attacks) == ("given", "tiny", 0, ("loss", "pia"))
    assert first.state == "finished" and first.date.startswith("20")
    label, auc = first.best
    rows = side_by_side([runs["first"], runs["other"]]).rows
    assert auc.value == max(row.rows[0].evaluation.auc.value for row in rows) and label in ("loss", "pia")
    assert listed["fewer"].state == "measured, not scored" and listed["fewer"].best is None
    assert listed["null"].state.startswith("not JSON") and listed["null"].dataset == ""
    for shard in (home / "deep" / "fewer" / "measurements").glob("*.parquet"):
        shard.unlink()
    assert list_runs(home / "deep" / "fewer")[0].state == "unfinished: 0 of 30 samples are measured"
    with pytest.raises(NothingError, match="no such folder"):
        list_runs(tmp_path / "nowhere")
    with pytest.raises(NothingError, match="no run in it"):
        list_runs(runs["first"] / "measurements")
