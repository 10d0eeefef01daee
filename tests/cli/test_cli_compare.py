"""`mia-bench compare` as a user calls it."""

import json
import re
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs: two on one target, one on another, one with another seed."""
    home = tmp_path_factory.mktemp("runs")
    for name, more in (("one", {}), ("two", {"rows": 3}), ("other", {"target": "tiny:8"}), ("seed", {"seed": 1})):
        tiny.go(home / name, dataset="icons", limit=12, command="mia-bench run --dataset icons", **more)
    return home


def test_equal_runs_pass_and_a_baseline_is_recorded(cli, runs, tmp_path):
    done = cli("compare", runs / "one", runs / "two", "--attacks", "loss,pia")
    assert done.status == 0 and "2 compared, none regressed" in done.out
    assert "loss" in done.out and "blind" not in done.out
    done = cli("compare", tmp_path / "base", runs / "one", "--update")
    assert done.status == 0 and "recorded" in done.out
    assert cli("compare", tmp_path / "base", runs / "two").status == 0
    assert cli("report", tmp_path / "base").status == 0, "a baseline is a run that can be shown"
    assert cli("report", tmp_path / "base", "--html", tmp_path / "page.html").status == 0
    assert "finished" in cli("runs", tmp_path / "base").out
    done = cli("score", tmp_path / "base")
    assert done.status == 3 and "no measurements" in done.err


def test_a_broken_attack_ends_with_1_and_names_attack_and_sample(cli, runs, tmp_path):
    shutil.copytree(runs / "two", tmp_path / "two")
    rows = pq.read_table(runs / "two" / "scores.parquet").to_pylist()
    hit = next(row for row in rows if row["attack"] == "pia")
    hit["score"] *= 1.5
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "two" / "scores.parquet")
    done = cli("compare", runs / "one", tmp_path / "two")
    assert done.status == 1
    assert "pia: moved; 1 of 24 scores" in done.out and hit["sample_id"] in done.out and "MOVED" in done.out
    record = json.loads(cli("compare", runs / "one", tmp_path / "two", "--json").out)
    (row,) = [row for row in record["rows"] if row["regressed"]]
    assert row["label"] == "pia" and row["worst"][0]["sample"] == hit["sample_id"] and record["status"] == 1


def test_another_target_is_tested(cli, runs):
    done = cli("compare", runs / "one", runs / "other", "--metrics", "auc,tpr_at_1", "--fail-on", "both")
    assert done.status in (1, 5) and "detectable" in done.out
    assert "not compared loss: 1 % of 12 non-members" in done.out
    assert cli("compare", runs / "one", runs / "other", "--margin", "0.9").status == 0
    done = cli("compare", runs / "one", runs / "other", "--metrics", "auc,tpr_at_1", "--margin", 0.9)
    assert done.status == 5 and "2 compared, none regressed; 2 could not be compared" in done.out
    assert "1 % of 12 non-members" in done.err and "fix: leave it out with --attacks or --metrics" in done.err
    done = cli("compare", runs / "one", runs / "other", "--format", "md", "--margin", "0.9")
    assert done.out.startswith("## ") and re.search(r"\| loss \| auc \| 24 \|", done.out)


def test_nothing_compared_is_a_failure_with_its_fix(cli, runs):
    done = cli("compare", runs / "one", runs / "seed")
    assert done.status == 5 and "other seed: 0 in the baseline, 1 now" in done.err
    assert "fix: run as the baseline was: `mia-bench run" in done.err and "--update" in done.err
    record = json.loads(cli("compare", runs / "one", runs / "seed", "--json").out)
    assert record["status"] == 5 and record["problem"].startswith("other seed")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("one", "nowhere"), 3, "nowhere"),
        (("one/results.json", "two"), 2, "holds no scores"),
        (("one", "two", "--metrics", "acu"), 2, "metric 'acu'"),
        (("one", "two", "--metrics", ","), 2, "no metric"),
        (("one", "two", "--alpha", "0"), 2, "--alpha"),
        (("one", "two", "--attacks", "wen"), 5, "no attack of the baseline"),
        (("one", "two", "--update"), 2, "measurements, which would be lost"),
    ],
)
def test_mistakes_are_told(cli, runs, monkeypatch, arguments, status, said):
    monkeypatch.chdir(runs)
    done = cli("compare", *arguments)
    assert done.status == status and said in done.err
