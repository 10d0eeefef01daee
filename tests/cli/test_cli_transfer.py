"""Calibration on another run, and several seeds, as a user sees them."""

import csv
import io
import json
from pathlib import Path

import pytest
import tiny

DATA = """
from dataclasses import replace
from mia_bench import DatasetMeta, hookimpl
from mia_bench.testing import icons
from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji

class Ours(FluentEmoji):
    meta = DatasetMeta(name="ours", summary="ours", targets=("tiny",))

    def samples(self):
        return icons(20, 20)

class Theirs(Ours):
    meta = DatasetMeta(name="theirs", summary="theirs")

    def samples(self):
        named = [(s, f"other-{s.id}", f"other-{s.group or s.id}") for s in icons(30, 110)]
        return [replace(s, id=i, group=g, content=f"other {s.content}") for s, i, g in named]

@hookimpl
def mia_bench_datasets():
    return [Ours, Theirs]
"""


@pytest.fixture
def runs(cli, tiny_run, tmp_path):
    """A shadow run in `shadow`, and a way to run on it."""
    (tmp_path / "data.py").write_text(DATA)

    def call(*arguments, **options):
        return tiny_run("-p", "data.py", "--dataset", "ours", *arguments, **{"limit": 200, **options})

    done = tiny_run(
        "-p", "data.py", "--dataset", "theirs", "--target", "tiny:8", out="shadow", attacks="loss", limit=200
    )
    assert done.status == 0, done.all
    return call


def test_a_run_on_a_shadow_model(cli, runs):
    done = runs("--calibrate-on", "shadow")
    assert done.status == 0, done.all
    assert "calibrated on shadow: a shadow model, 30 members and 110 non-members of theirs as tiny:8" in done.out
    assert "not calibrated pia: shadow has no pia; run it there too" in done.out
    (line,) = [one for one in done.out.splitlines() if one.startswith("attack, at the calibration set's threshold")]
    assert "TPR, for 1 %" in line and "FPR, for 1 %" in line and "0.1 %" not in line
    assert "no threshold for 0.1 %: 0.1 % of 110 calibration non-members" in done.out
    table = done.out.split(line)[1].split("\n\n")[0]
    assert "loss" in table and "pia" not in table


def test_every_format_says_it(cli, runs):
    result = json.loads(runs("--calibrate-on", "shadow", "--json").out)
    assert result["shadow"]["target"] == "tiny:8" and result["shadow"]["run"] == "shadow"
    loss = next(row for row in result["rows"] if row["label"] == "loss")
    one, tenth = loss["evaluation"]["transferred"]
    assert loss["calibration"]["source"] == "shadow" and one["n_calibration"] == 110
    assert one["tpr"]["value"] is not None and tenth["tpr"]["value"] is None and tenth["tpr"]["reason"]
    lines = csv.DictReader(io.StringIO(cli("report", "run", "--format", "csv").out))
    row = next(line for line in lines if line["attack"] == "loss")
    assert row["calibrated_on"] == "shadow" and row["calibration_nonmembers"] == "110"
    assert float(row["fpr_carried_1"]) == one["fpr"]["value"] and row["tpr_carried_01"] == ""
    assert float(row["tpr_carried_1_high"]) == one["tpr"]["high"]
    text = cli("report", "run", "--format", "md").out
    assert "| attack, at the calibration set's threshold |" in text and "a shadow model" in text
    assert cli("report", "run", "--html", "page.html", "--pictures", "0").status == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert "calibrated on shadow: a shadow model" in page and "shadow model, 30 + 110" in page
    assert "fpr carried over for 1 % FPR" in cli("report", "run", "--details").out


def test_a_run_is_scored_again_on_another(cli, runs):
    runs()
    before = cli("report", "run").out
    assert "could be calibrated" in before and "at the calibration set's threshold" not in before
    done = cli("score", "run", "--calibrate-on", "shadow", "-p", tiny.__file__)
    assert done.status == 0 and "a shadow model" in done.out
    assert "a shadow model" in cli("report", "run").out
    again = cli("score", "run", "--calibrate-on", "run", "-p", tiny.__file__)
    assert "could be calibrated" in again.out and "a shadow model" not in again.out
    lost = cli("score", "run", "--calibrate-on", "nowhere", "-p", tiny.__file__)
    assert lost.status == 3 and "nowhere" in lost.err


def test_seeds_are_a_table_of_their_own(cli, runs, tmp_path):
    done = runs("--seeds", "3", limit=12)
    assert done.status == 0, done.all
    assert "seeds 0 to 2" in done.out and "AUC, mean of 3" in done.out and "95 % over images, seed 0" in done.out
    lines = {line.split()[0]: line for line in done.out.splitlines() if line[:4] in ("loss", "pia ")}
    assert "–  " in lines["pia"] and "±" in lines["loss"] and "±" not in lines["pia"]
    assert "every seed gives the same numbers, as nothing is drawn" in done.out
    assert [f"run folder: {tmp_path / 'run' / f'seed{n}'}" in done.out for n in range(3)] == [True] * 3
    again = runs("--seeds", "3", "--json", limit=12)
    assert "nothing to measure" in again.err
    record = json.loads(again.out)
    assert record["over_seeds"]["seeds"] == [0, 1, 2] and [r["seed"] for r in record["results"]] == [0, 1, 2]
    loss, pia = (next(r for r in record["over_seeds"]["rows"] if r["label"] == name) for name in ("loss", "pia"))
    assert pia["fixed"] and not loss["fixed"] and loss["metrics"]["auc"]["sd"] > 0
    assert loss["metrics"]["auc"]["images"]["low"] == record["results"][0]["rows"][0]["evaluation"]["auc"]["low"]


def test_reports_of_runs_that_differ_only_in_seed_show_the_same(cli, runs):
    runs("--seeds", "2", limit=12)
    runs("--seed", "5", limit=9, out="fewer")
    both = cli("report", "run/seed0", "run/seed1")
    assert "seeds 0 to 1" in both.out and "sd over noise" in both.out
    assert "over_seeds" in json.loads(cli("report", "run/seed0", "run/seed1", "--json").out)
    assert "sd over noise" in cli("report", "run/seed0", "run/seed1", "--format", "md").out
    assert "sd over noise" not in cli("report", "run/seed0", "fewer").out


def test_seeds_with_recorded_noise(cli, runs):
    done = runs("--seeds", "2", "--noise", "noise.npz")
    assert done.status == 2 and "recorded noise is the same under any seed" in done.err


def test_what_would_run(runs):
    assert "for each of 4 seeds" in runs("--seeds", "4", "--collect-only").out
