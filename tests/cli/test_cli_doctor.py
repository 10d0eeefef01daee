"""`mia-bench doctor` and `run --dry-run` as a user reads them."""

import json
from pathlib import Path

import pipelines
import pytest

ROOT = Path(__file__).parents[2]


def blocks(text):
    """Title -> lines."""
    found = [block.splitlines() for block in text.strip().split("\n\n")]
    return {lines[0]: lines[1:] for lines in found}


def test_the_machine(cli):
    done = cli("doctor")
    assert done.status == 0 and set(blocks(done.out)) == {"MACHINE"}
    names = {line.split("  ")[0] for line in blocks(done.out)["MACHINE"]}
    assert {"mia-bench", "torch", "diffusers", "transformers", "device", "memory", "hub cache", "cache"} <= names


def test_the_embedded_target(cli):
    done = cli("doctor", "--target", "emoji-realworld", "--dataset", "fluent-emoji")
    found = blocks(done.out)
    assert done.status == 0 and list(found) == ["MACHINE", "DATASET", "TARGET", "ATTACKS"]
    assert "audit        400 members, 400 non-members" in found["DATASET"]
    assert any(line.startswith("denoiser, a row") for line in found["TARGET"])
    rows = {line.split()[0]: line.split()[1:] for line in found["ATTACKS"][2:]}
    assert rows["loss"] == ["yes", "1"] and rows["pia"] == ["yes", "2"]
    assert rows["noise-probe"][0] == "no" and "--reference" in rows["noise-probe"]


@pytest.mark.parametrize(("name", "kind"), [("sdxl", "stable-diffusion-xl"), ("ddpm", "ddpm")])
def test_a_pipeline_folder(cli, tmp_path, name, kind):
    done = cli("doctor", "--target", pipelines.saved(name, tmp_path / "pipeline"), "--dtype", "bfloat16", "--json")
    found = json.loads(done.out)
    assert done.status == 0 and found["error"] is None
    assert (found["target"]["family"], found["target"]["dtype"]) == (kind, "bfloat16")
    assert found["attacks"]["clid"]["runs"] == (name == "sdxl") and found["attacks"]["loss"]["runs"]


def test_a_function(cli):
    done = cli("doctor", "--target", f"callable:{ROOT / 'tests' / 'painter.py'}:draw", "--resolution", 64)
    found = blocks(done.out)
    assert done.status == 0 and "images             64 px a side" in found["TARGET"]
    rows = {line.split()[0]: line.split()[1:] for line in found["ATTACKS"][2:]}
    assert rows["wu-iip"] == ["yes", "1"] and " ".join(rows["loss"][1:]) == "target callable shows no predicted noise"


@pytest.mark.parametrize(
    ("arguments", "status", "said", "fix"),
    [
        (["--target", "./nowhere"], 3, "target ./nowhere: no such folder", "model_index.json"),
        (["--target", "emoji-relworld"], 2, "did you mean emoji-realworld", "mia-bench list"),
        (["--target", "callable:no.py:f"], 3, "target file no.py: no such file", "callable:FILE.py:NAME"),
        (["--target", "emoji-realworld", "--resolution", "33"], 2, "needs a multiple of", "its own is 32"),
        (["--dataset", "folder:nowhere"], 3, "no such folder", "check the path"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_had_is_an_error_below_the_machine(cli, arguments, status, said, fix):
    done = cli("doctor", *arguments)
    assert done.status == status and list(blocks(done.out)) == ["MACHINE"]
    first, second = done.err.splitlines()[-2:]
    assert first.startswith("error: ") and said in first and second.startswith("  fix: ") and fix in second
    assert json.loads(cli("doctor", *arguments, "--json").out)["error"]["fix"]


def test_a_gated_model_without_a_network(cli, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = cli("doctor", "--target", "sd3-medium")
    assert done.status == 3 and "offline: HF_HUB_OFFLINE is set" in done.out
    assert "repository stabilityai/stable-diffusion-3-medium-diffusers: not whole in the hub's cache" in done.err
    assert "mia-bench fetch --weights stabilityai/stable-diffusion-3-medium-diffusers`" in done.err


def test_a_device_that_does_not_exist(cli):
    done = cli("doctor", "--device", "warp")
    assert (done.status, done.out) == (3, "") and "--device cpu" in done.err


def test_a_broken_plugin_is_shown_and_is_the_status(cli, tmp_path):
    (tmp_path / "bad.py").write_text("raise OSError('no library')")
    done = cli("doctor", "-p", tmp_path / "bad.py")
    assert done.status == 4 and "no library" in done.err


def test_a_dry_run(tiny_run):
    done = tiny_run("--dry-run", "--rows", 4, "--threads", 1)
    assert done.status == 0 and not Path("run").exists()
    left, speed, total = done.out.strip().splitlines()[-5:-2]
    assert left == "left to measure: 6 samples, at most 18 queries"
    assert speed.startswith("measured on this machine, per row in calls of 4: denoiser ") and ", vae " in speed
    assert total.startswith("at most ") and "decoded, compared, differentiated and fitted" in total


def test_a_dry_run_as_json(tiny_run):
    found = json.loads(tiny_run("--dry-run", "--json").out)
    assert found["estimate"]["queries"] == 18 and found["estimate"]["seconds"] > 0 and len(found["attacks"]) >= 2


def test_an_attack_that_the_target_cannot_serve_points_to_what_runs(cli, tmp_path):
    folder = pipelines.saved("ddpm", tmp_path / "a pipeline")
    done = cli("run", "--attacks", "clid", "--dataset", "fluent-emoji", "--limit", 2, "--target", folder)
    first, fix = done.err.splitlines()[-2:]
    assert (done.status, first) == (2, "error: attack 'clid': target ddpm takes no captions")
    assert fix == f"  fix: leave clid out of --attacks; `mia-bench doctor --target '{folder}'` shows what runs"


def test_a_reference_that_is_not_there_is_said_to_be_it(cli):
    where = ["--dataset", "fluent-emoji", "--target", "emoji-realworld", "--reference", "./nowhere"]
    done = cli("run", "--attacks", "noise-probe", *where)
    assert done.status == 3 and "error: --reference: target ./nowhere: no such folder" in done.err
