"""`report` in its forms, `report` of several runs, and `runs`."""

import csv
import io
import json

import tiny


def test_forms_of_one_run(cli, tiny_run, tmp_path):
    printed = json.loads(tiny_run("--json").out)
    assert json.loads(cli("report", "run", "--format", "json").out) == printed
    assert json.loads(cli("report", "run", "--json").out) == printed
    assert cli("report", "run", "--format", "md").out.startswith("## icons on tiny: 3 members, 3 non-members")
    lines = list(csv.DictReader(io.StringIO(cli("report", "run", "--format", "csv").out)))
    assert {line["attack"]: line["auc"] for line in lines} == {
        row["label"]: str(row["evaluation"]["auc"]["value"]) if row["evaluation"] else "" for row in printed["rows"]
    }
    text = cli("report", "run", "--details")
    assert text.status == 0 and "reason or method" in text.out
    assert "Zhai et al., NeurIPS 2024" in cli("report", "run", "--published").out
    assert cli("report", "run", "--format", "html").status == 2


def test_a_page(cli, tiny_run, tmp_path):
    tiny_run()
    done = cli("report", "run", "--html", "out.html", "-p", tiny.__file__, "--pictures", 2)
    assert done.status == 0 and done.out.splitlines()[-1] == "page: out.html"
    assert "<h1>icons on tiny</h1>" in (tmp_path / "out.html").read_text()
    quiet = cli("report", "run", "--html", "out.html", "--json")
    json.loads(quiet.out)
    assert "page: out.html" in quiet.err, "without -p the dataset is unknown, and the page is written all the same"
    assert "dataset icons cannot be opened" in (tmp_path / "out.html").read_text()
    lost = cli("report", "run", "--html", "no/out.html")
    assert lost.status == 2 and "--html" in lost.err


def test_several_runs(cli, tiny_run, tmp_path):
    tiny_run(limit=12)
    tiny_run("--dataset", "icons", "--target", "tiny:8", limit=12, out=tmp_path / "other")
    tiny_run(limit=5, out=tmp_path / "fewer")
    done = cli("report", "run", "other", "fewer")
    assert done.status == 0
    header = done.out.splitlines()[0]
    assert "AUC [1]" in header and "AUC [3]" in header and "[2] − [1]" in header and "[3] − [1]" not in header
    assert "[3] is not paired with [1]: other samples: 10 in both, of 24 and 10" in done.out
    assert "[2] other: icons on tiny:8" in done.out and "pairs: 24 samples" in done.out
    lines = list(csv.DictReader(io.StringIO(cli("report", "run", "other", "--format", "csv").out)))
    assert [(line["attack"], line["run"]) for line in lines][:2] == [("loss", "run"), ("loss", "other")]
    content = json.loads(cli("report", "run", "other", "--json").out)
    against = {row["label"]: row["against_first"][0] for row in content["rows"]}
    assert against["loss"]["n"] == against["pia"]["n"] == 24
    assert against["blind"]["p_value"] is None and against["blind"]["reason"] == "control"
    assert "| loss |" in cli("report", "run", "other", "--format", "md").out
    assert cli("report", "run", "other", "--html", "out.html").status == 2
    assert cli("report", "run", "other", "--published").status == 2
    assert cli("report").status == 2


def test_runs(cli, tiny_run, tmp_path):
    assert cli("runs").status == 5
    tiny_run(out=tmp_path / "runs" / "a")
    tiny_run("--seed", "3", out=tmp_path / "runs" / "b")
    done = cli("runs")
    assert done.status == 0
    assert "runs/a" in done.out and "runs/b" in done.out and done.out.count("finished") == 2
    records = json.loads(cli("runs", "runs", "--json").out)
    assert [r["seed"] for r in records] == [0, 3] and records[0]["attacks"] == ["loss", "pia"]
    assert records[0]["best"]["attack"] in ("loss", "pia")
