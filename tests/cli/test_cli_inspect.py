"""`inspect` from the command line to the exit status."""

import json

import pytest
import tiny

from mia_bench.inspection import Inspection


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path / "cache"))


def inspect(cli, *arguments):
    return cli("inspect", "icons", "-p", tiny.__file__, "--encoder", "emoji-clip", "--limit", 25, *arguments)


def test_tables_and_notes(cli):
    done = inspect(cli)
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0].startswith("icons: 800 samples, ")
    assert any(line.split()[:5] == ["audit", "members", "400", "25", "0"] for line in lines)
    for said in ("near-duplicates were sought among 50 of 800 images", "AUC, blind@caption", "Fréchet, emoji-clip"):
        assert said in done.out


def test_json_is_the_record_and_the_page_is_written(cli, tmp_path):
    done = inspect(cli, "--json", "--html", "page.html")
    assert done.status == 0
    assert Inspection.model_validate(json.loads(done.out)).n == 800
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "page: page.html" in done.err


def test_a_page_that_cannot_be_written_is_said_before_images_are_read(cli, monkeypatch):
    monkeypatch.setattr("mia_bench.engine.inspect.inspect_dataset", lambda *a: pytest.fail("it was read"))
    done = inspect(cli, "--html", "nowhere/page.html")
    assert done.status == 2 and "no folder nowhere" in done.err and "fix:" in done.err


def test_a_page_that_is_a_folder_costs_no_table(cli, tmp_path):
    (tmp_path / "page").mkdir()
    done = inspect(cli, "--html", "page")
    assert done.status == 2 and "Is a directory" in done.err and "AUC, blind" in done.out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["nobody"], 2, "unknown dataset 'nobody'"),
        (["folder:nowhere"], 3, "no such folder"),
        (["fluent-emoji:x"], 2, "takes no argument"),
        (["fluent-emoji", "--encoder", "emoji-clips"], 2, "unknown encoder"),
        (["fluent-emoji", "--encoder", "ssim"], 2, "offers no embed"),
        ([], 2, "DATASET"),
    ],
)
def test_mistakes(cli, arguments, status, said):
    done = cli("inspect", *arguments)
    assert (done.status, said in done.err) == (status, True), done.err


def test_a_run_says_how_its_samples_were_divided(tiny_run, cli, tmp_path):
    done = tiny_run("--calibration", "0.25", "--balance", limit=5)
    assert done.status == 0
    line = next(line for line in done.out.splitlines() if line.startswith("calibration set: "))
    assert line.startswith("calibration set: 0.25 of each class, 100 + 100 in all") and "split seed 0" in line
    assert line in cli("report", tmp_path / "run").out
    assert line in tiny_run("--calibration", "0.25", "--balance", "--collect-only").out
    assert tiny_run("--calibration", "1").status == 2
    refused = cli("run", "--dataset", "fluent-emoji", "--calibration", "0.2")
    assert refused.status == 2 and "fix: leave out --calibration" in refused.err
