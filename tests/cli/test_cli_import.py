"""`import`, and what other commands make of such a run."""

import csv
import io
import json

import numpy as np
import pytest


@pytest.fixture
def imported(cli, tmp_path):
    """`mia-bench import` of two attacks on 300 + 300 samples with a calibration set; what it printed."""
    rng = np.random.default_rng(0)
    for name in ("audit", "other"):
        lines = ["sample,label,timestep,score"]
        for i in range(600):
            lines += [f"{i},{int(i < 300)},{t},{10 + rng.normal() - (i < 300) + t}" for t in (1, 2)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))

    def call(*arguments, out="run"):
        files = [
            "loss=audit.csv",
            "x<b>=audit.csv",
            "--calibration",
            "loss=other.csv",
            "--calibration",
            "x<b>=other.csv",
        ]
        return cli(
            "import", *files, "--reduce", "sum", "--lower-is-member", "--ids-per-split", "--out", out, *arguments
        )

    return call


def test_the_table_says_what_is_unknown(imported, cli, tmp_path):
    done = imported("-o", "loss.reduce=corr")
    assert done.status == 0
    first, *rest = done.out.splitlines()
    assert first == "audit on an unknown target: 300 members, 300 non-members; imported scores"
    row = next(line for line in rest if line.startswith("loss"))
    assert " –  no blind baseline  reduce=corr, lower_is_member=True, imported, transductive" in row
    assert "imported from audit.csv (" in done.out and "scores that another program computed" in done.out
    assert "not known of imported scores: the target's weights, the images, captions, noise" in done.out
    assert "no blind baseline" in done.out and "queries asked" not in done.out
    assert "could be calibrated" not in done.out, "there is a calibration set"
    content = json.loads(imported("--json", "--dataset", "coco", "--target", "sd").out)
    assert (content["dataset"], content["target"], content["seed"], content["cost"]["asked"]) == ("coco", "sd", None, 0)


def test_other_commands(imported, cli, tmp_path):
    imported()
    listed = cli("runs", ".")
    assert "audit" in listed.out and "an unknown target" in listed.out and "finished" in listed.out
    assert json.loads(cli("runs", ".", "--json").out)[0]["seed"] is None
    for form in ("md", "csv", "json"):
        assert cli("report", "run", "--format", form).status == 0
    assert cli("report", "run", "--details", "--published").status == 0
    page = cli("report", "run", "--html", "out.html")
    text = (tmp_path / "out.html").read_text()
    assert page.status == 0 and "mia-bench import" in text and "Imported from audit.csv" in text
    assert "x&lt;b&gt;" in text and "x<b>" not in text and "for want of the images" in text
    assert "seed unknown" in text and "None" not in text
    assert "no images of the samples: scores were imported" in text
    again = cli("score", "run", "-o", "loss.reduce=mean")
    assert again.status == 0 and "reduce=mean" in again.out and "imported from" in again.out
    imported("--dataset", "audit", out="other")
    side = cli("report", "run", "other")
    assert side.status == 0 and "pairs: 600 samples" in side.out
    assert cli("audit", "run", "--attacks", "loss").status == 0
    mirrored = cli("mirror", "run", "other")
    assert mirrored.status == 2 and "which target they are of is not known" in mirrored.err
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "x.json").write_text(cli("report", "run", "--json").out)
    assert "no result there" in cli("leaderboard", "--results", "results").err
    (tmp_path / "run" / "scores.parquet").unlink()
    assert cli("score", "run").status == 0 and (tmp_path / "run" / "scores.parquet").exists()


def test_mistakes(cli, tmp_path):
    (tmp_path / "a.csv").write_text("sample,label,score\na,1,x\n")
    done = cli("import", "a.csv", "--out", "run")
    assert done.status == 3 and "error: scores a.csv, row 1: score 'x' is no number" in done.err and "fix: " in done.err
    assert cli("import", "a.csv").status == 2 and cli("import", "--out", "run").status == 2
    (tmp_path / "b.csv").write_text("sample,label,score\na,1,1\n")
    one = cli("import", "b.csv", "--out", "run")
    assert one.status == 5 and "all 1 audit samples are members" in one.out
    unknown = cli("run", "--attacks", "imported", "--target", "emoji-overtrain")
    assert unknown.status == 2 and "unknown attack 'imported'" in unknown.err


def test_rules_beside_ours(imported, cli, tmp_path):
    imported()
    done = cli("report", "run", "--rules")
    assert done.status == 0
    assert [line.split()[0] for line in done.out.splitlines()[3:9]] == [
        "SecMI",
        "PIA",
        "PFAMI‡",
        "CLiD‡",
        "CopyMark",
        "CDI",
    ]
    assert "carried over: TPR / FPR" in done.out and "CDI: TPR at the first point" in done.out
    lines = list(csv.DictReader(io.StringIO(cli("report", "run", "--rules", "--format", "csv").out)))
    ours = json.loads(cli("report", "run", "--json").out)["rows"]
    exact = {row["label"]: row["evaluation"]["auc"]["value"] for row in ours}
    assert {(line["attack"], float(line["auc"])) for line in lines if line["rule"] in ("ours", "PIA")} == {
        *exact.items()
    }
    assert all((line["carried_tpr_at_0.01"] != "") == (line["rule"] == "CopyMark") for line in lines)
    (content, _) = json.loads(cli("report", "run", "--rules", "--json").out)
    assert [rule["positives"] for rule in content["rules"]].count("non-members") == 2
    assert "| SecMI |" in cli("report", "run", "--rules", "--format", "md").out
    (tmp_path / "r.json").write_text(cli("report", "run", "--json").out)
    assert "holds no scores" in cli("report", "r.json", "--rules").err
    assert cli("report", "run", "run", "--rules").status == 2


def test_rules_without_a_grid_or_a_second_set(cli, tmp_path):
    (tmp_path / "a.csv").write_text("sample,label,score\na,1,inf\nb,0,1\nc,0,0\n")
    cli("import", "a.csv", "--out", "run")
    infinite = cli("report", "run", "--rules")
    assert infinite.status == 0 and "a has no other rules: a score is infinite" in infinite.out
    (tmp_path / "a.csv").write_text("sample,label,score\na,1,3\nb,0,1\nc,0,0\n")
    cli("import", "a.csv", "--out", "run")
    assert "nothing is carried over: the run has no calibration set" in cli("report", "run", "--rules").out
