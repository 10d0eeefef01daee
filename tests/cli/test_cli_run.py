"""`run`, `score` and `report`, from the command line to the exit status."""

import json
import textwrap

import pytest
import tiny

from mia_bench.result import Result
from mia_bench.store import Store


def test_a_run_prints_a_table_and_where_it_is(tiny_run, tmp_path):
    done = tiny_run(limit=10)
    assert done.status == 0
    header, _, columns, _, *rows = done.out.splitlines()
    assert header == "icons on tiny: 10 members, 10 non-members; seed 0, float32"
    assert columns.split("  ")[0] == "attack" and "AUC [95 % interval]" in columns
    controls = {"blind", "blind@image", "blind@caption", "blind@encoder"}
    assert {row.split()[0] for row in rows[:6]} == {"loss", "pia", *controls}
    assert done.out.splitlines()[-1] == f"run folder: {tmp_path / 'run'}"
    lines = done.err.splitlines()
    assert "measuring 20 samples in 1 batch: loss, pia, blind" in lines[0]
    assert "20/20 samples" in lines[-1]
    assert "\x1b" not in done.all and "\r" not in done.all, "plain lines when redirected"


def test_why_there_is_no_blind_baseline_is_said(tiny_run):
    said = tiny_run().out.splitlines()
    assert [line for line in said if "too few samples" in line]


def test_the_same_command_again_says_that_nothing_is_left(tiny_run, tmp_path):
    first, again = tiny_run(), tiny_run()
    assert again.status == first.status == 0
    assert again.out == first.out
    assert "nothing to measure: all 6 samples are stored" in again.err


def test_run_as_json_is_the_result(tiny_run, tmp_path):
    done = tiny_run("--json")
    result = Result.model_validate_json(done.out)
    assert [r.label for r in result.rows if not r.control] == ["loss", "pia"]
    assert "6/6 samples" in done.err
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == json.loads(done.out)


def test_report_and_score_print_the_same_table(tiny_run, cli, tmp_path):
    table = tiny_run().out
    for command in ("report", "score"):
        done = cli(command, tmp_path / "run")
        assert done.status == 0
        assert done.out.splitlines()[:8] == table.splitlines()[:8]
        assert json.loads(cli(command, tmp_path / "run", "--json").out)["dataset"] == "icons"


def test_report_reads_a_file_too(tiny_run, cli, tmp_path):
    (tmp_path / "saved.json").write_text(tiny_run("--json").out)
    assert "loss" in cli("report", tmp_path / "saved.json").out


def test_report_in_detail(tiny_run, cli, tmp_path):
    tiny_run()
    done = cli("report", tmp_path / "run", "--details")
    assert done.status == 0
    for metric in ("auc", "tpr_at_1", "tpr_at_01", "tnr_at_1", "tnr_at_01", "asr_oracle", "asr_calibrated"):
        assert done.out.count(f" {metric} ") >= 2
    assert "fewer than 1, so no threshold" in done.out


def test_collect_only_shows_the_plan_and_writes_nothing(tiny_run, tmp_path):
    done = tiny_run("--collect-only")
    assert done.status == 0
    assert "t=450" in done.out and "t=500" in done.out
    assert "run folder:" in done.out
    assert not (tmp_path / "run").exists()
    plan = json.loads(tiny_run("--collect-only", "--json").out)
    assert {a["label"]: a["params"].get("t") for a in plan["attacks"] if not a["control"]} == {"loss": 450, "pia": 500}


def test_score_changes_what_only_scoring_reads(tiny_run, cli, tmp_path):
    tiny_run(attacks="clid")
    before = (tmp_path / "run" / "scores.parquet").read_bytes()
    done = cli("score", tmp_path / "run", "-o", "clid.alpha=0.5", "--json")
    assert done.status == 0
    assert json.loads(done.out)["rows"][0]["params"]["alpha"] == 0.5
    assert (tmp_path / "run" / "scores.parquet").read_bytes() != before
    refused = cli("score", tmp_path / "run", "-o", "clid.t=[1]")
    assert refused.status == 2
    assert "mia-bench run" in refused.err


def test_the_default_folder(cli, tmp_path):
    done = cli("run", "--attacks", "loss", "--target", "tiny", "-p", tiny.__file__, "--limit", 2)
    assert "run folder: runs/icons--tiny--seed0" in done.out
    assert (tmp_path / "runs" / "icons--tiny--seed0" / "scores.parquet").exists()


# Interruption and failure ---------------------------------------------------------------------------------------


def written(path, code):
    path.write_text("from mia_bench import hookimpl\n" + textwrap.dedent(code))
    return path


STOP = """
@hookimpl
def mia_bench_batch_measured(event):
    if event.batch == 2:
        raise KeyboardInterrupt
"""


def test_an_interrupted_run_is_said_to_be_unfinished_and_what_goes_on(tiny_run, cli, tmp_path):
    assert tiny_run("--batch", 2, "-p", written(tmp_path / "stop.py", STOP)).status == 130
    run = tmp_path / "run"
    goes_on = f"go on with `mia-bench run --attacks loss,pia --target tiny -p {tiny.__file__} --limit 3 --out {run} "
    done = cli("report", run)
    assert done.status == 3
    assert f"error: run folder {run}: unfinished: 4 of 6 samples are measured" in done.err and goes_on in done.err
    for _ in range(2):  # the result that scoring writes does not finish the run
        done = cli("score", run, "-p", tiny.__file__)
        assert done.status == 3
        assert "(2 more not measured yet)" in done.out.splitlines()[0]
        assert f"unfinished: 4 of 6 samples are measured; {goes_on}" in done.out
    assert "unfinished: 4 of 6" in cli("report", run).out
    assert "unfinished" not in tiny_run().out
    assert "unfinished" not in cli("score", run).out


def test_scoring_without_the_runs_plugin_names_the_command_that_had_it(tiny_run, cli, tmp_path):
    tiny_run(attacks="logged")
    done = cli("score", tmp_path / "run")
    assert done.status == 2
    assert "attack 'logged' of the run: no plugin loaded has it" in done.err
    assert f"add -p FILE.py; the run was `mia-bench run --attacks logged --target tiny -p {tiny.__file__}" in done.err
    assert cli("score", tmp_path / "run", "-p", tiny.__file__).status == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "not a result of this version: Result.dataset: Field required"),
        ("x", "not JSON"),
        ("[1]", "not a JSON object"),
    ],
)
def test_a_file_that_is_no_result_is_met_with_what_is(cli, tmp_path, content, said):
    (tmp_path / "wrong.json").write_text(content)
    done = cli("report", "wrong.json")
    assert done.status == 3
    assert said in done.err.splitlines()[0] and "pydantic" not in done.err
    assert "give a run folder, or a file that `mia-bench run --json` printed" in done.err
    done = cli("score", "wrong.json")
    assert (done.status, done.out) == (3, "")
    assert "run folder wrong.json: it is a file" in done.err and "give a folder" in done.err


def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(tiny_run, tmp_path):
    stop = written(tmp_path / "stop.py", STOP)
    whole = tiny_run(out=tmp_path / "whole")
    done = tiny_run("--batch", 2, "-p", stop)
    assert done.status == 130
    last = f"interrupted: 4/6 samples are stored now in {tmp_path / 'run'}; run the same command again to resume"
    assert done.err.splitlines()[-1] == last
    assert "Traceback" not in done.err
    resumed = tiny_run("--batch", 2)
    assert resumed.status == whole.status == 0
    assert "measuring 2 samples in 1 batch, 4 already stored" in resumed.err
    scores = [(tmp_path / name / "scores.parquet").read_bytes() for name in ("run", "whole")]
    assert scores[0] == scores[1]


FAULTY = """
from mia_bench_plugins.attacks.loss import Loss

class Faulty(Loss):
    meta = Loss.meta.model_copy(update={"name": "faulty"})

    def measure(self, batch, target):
        raise RuntimeError("tensor of \\x1b[31mwrong\\x1b[0m shape")

@hookimpl
def mia_bench_attacks():
    return [Faulty]
"""


def test_a_faulty_attack_is_a_row_that_says_why(tiny_run, tmp_path):
    done = tiny_run("-p", written(tmp_path / "faulty.py", FAULTY), attacks="loss,faulty")
    assert done.status == 4
    assert "failed faulty: measure failed: RuntimeError: tensor of" in done.out
    assert f"shape at {tmp_path / 'faulty.py'}:9\n" in done.out
    assert "\x1b" not in done.all and "Traceback" not in done.all
    assert "loss" in done.out.splitlines()[4]


@pytest.mark.parametrize("stage", ["measure(self, batch, target)", "score(self, measured, calibration)"])
def test_the_traceback_of_a_faulty_attack_on_demand(tiny_run, tmp_path, monkeypatch, stage):
    monkeypatch.setenv("MIA_BENCH_DEBUG", "1")
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "faulty.py", FAULTY.replace("measure(self, batch, target)", stage))
    done = tiny_run("-p", "faulty.py", attacks="loss,faulty")
    assert done.status == 4
    assert done.err.count("Traceback (most recent call last)") == 1 and "in " + stage.split("(")[0] in done.err
    assert f"{tmp_path / 'faulty.py'}:9\n" in done.out


def test_x_stops_with_the_cause(tiny_run, tmp_path):
    done = tiny_run("-x", "-p", written(tmp_path / "faulty.py", FAULTY), attacks="loss,faulty")
    assert done.status == 4
    assert "error: attack faulty: measure failed: RuntimeError" in done.err
    assert done.out == ""


def test_a_folder_in_use_is_refused(tiny_run, tmp_path):
    with Store(tmp_path / "run").locked():
        done = tiny_run()
    assert done.status == 2
    assert "another run is writing" in done.err and "--out" in done.err


def test_a_bug_is_an_internal_error_with_its_traceback_on_demand(cli, monkeypatch):
    def bug(files, strict):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("mia_bench.plugins.Registry.load", bug)
    done = cli("list")
    assert done.status == 70
    assert "internal error: ZeroDivisionError: a bug" in done.err and "MIA_BENCH_DEBUG=1" in done.err
    monkeypatch.setenv("MIA_BENCH_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli("list")
