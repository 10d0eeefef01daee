"""`run --profile`."""

import json

import pytest

from mia_bench.result import Result


def test_the_time_is_shown_after_the_results_and_written(tiny_run, tmp_path):
    done = tiny_run("--profile", limit=10)
    assert done.status == 0
    lines = done.out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("where the time went"))
    assert lines.index(f"run folder: {tmp_path / 'run'}") < start
    assert {"start-up", "loading", "denoiser", "vae", "text", "noise", "images", "storing", "scoring", "controls"} <= {
        line.split()[0] for line in lines[start + 2 :] if line
    }
    assert "perfetto" in lines[-1] and "profile.trace.json" in lines[-1]
    profile = json.loads((tmp_path / "run" / "profile.json").read_text())
    assert sum(row["wall_s"] for row in profile["rows"]) == pytest.approx(profile["wall_s"])
    named = {row["name"]: row["wall_s"] for row in profile["rows"]}
    assert named["other"] < 0.6 * profile["wall_s"] and min(named.values()) >= 0
    trace = json.loads((tmp_path / "run" / "profile.trace.json").read_text())["traceEvents"]
    assert {e["args"]["name"].split("_")[0] for e in trace if e["ph"] == "M"} >= {"main", "loader"}


def test_json_stays_json(tiny_run, tmp_path):
    done = tiny_run("--profile", "--json")
    Result.model_validate_json(done.out)
    assert (tmp_path / "run" / "profile.json").exists()


def test_scores_are_the_same_and_nothing_is_written_unasked(tiny_run, tmp_path):
    tiny_run(out=tmp_path / "plain")
    tiny_run("--profile", out=tmp_path / "profiled")
    plain, profiled = (tmp_path / n / "scores.parquet" for n in ("plain", "profiled"))
    assert plain.read_bytes() == profiled.read_bytes()
    assert not list((tmp_path / "plain").glob("profile*"))


def test_of_several_seeds_there_is_one_profile(tiny_run, tmp_path):
    done = tiny_run("--profile", "--seeds", 2)
    assert done.status == 0 and done.out.count("where the time went") == 1
    assert len(list((tmp_path / "run").parent.rglob("profile.json"))) == 1
