"""A function as target, by the public command line: what it knows shows, and nothing of how it is run does."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

TESTS = Path(__file__).parents[1]
PAINTER = f"callable:{TESTS / 'painter.py'}:draw"
ATTACKS = "wu-iip@quick,wu-iis@quick-training-free,sweep@quick"

PICKY = """import sys
sys.path.append({folder!r})
import painter
def draw(caption, seed, size, image, strength):
    assert caption != {caption!r}, "not this"
    return painter.draw(caption, seed=seed, size=size, image=image, strength=strength)
"""


@pytest.fixture
def paint(cli):
    def call(*arguments, target=PAINTER, attacks=ATTACKS, out="out", limit=10):
        where = ["--dataset", "fluent-emoji", "--target", target, "--resolution", 32, "--out", out, "--limit", limit]
        return cli("run", "--attacks", attacks, *where, "--threads", 1, *arguments)

    return call


def test_a_function_that_knows_its_members_is_found_out(paint):
    done = paint("--json", attacks="wu-iip@quick,wu-iis@quick,wu-iis@quick-training-free,sweep@quick")
    result = json.loads(done.out)
    rows = {r["label"]: r for r in result["rows"] if not r["control"]}
    assert done.status == 0 and len(rows) == 4, done.err
    assert {label: r["evaluation"]["auc"]["value"] for label, r in rows.items()} == dict.fromkeys(rows, 1.0)
    assert {label: r["queries"] for label, r in rows.items()} == {
        label: 6.0 if "sweep" in label else 1.0 for label in rows
    }
    images = result["cost"]["images"]
    assert images == 50 and result["cost"]["executed"] == 7 * images, "all of wu judge one image"
    assert result["target_facts"]["function"] == "draw"


def test_what_needs_a_denoiser_is_left_out_and_the_rest_runs(paint):
    done = paint(attacks="all", target=PAINTER.replace("draw", "plain"), limit=4)
    skipped = dict(line.removeprefix("skipped ").split(": ", 1) for line in done.out.splitlines() if "skipped" in line)
    ran = {line.split()[0].partition("[")[0].partition("@")[0] for line in done.out.splitlines() if line[:3] == "wu-"}
    assert ran == {"wu-ip", "wu-is", "wu-iip", "wu-iis", "wu-iii", "wu-iv"} and done.status == 0
    assert "callable" in skipped["loss"] and "noise" in skipped["loss"]
    assert "draws from captions alone" in skipped["sweep[emoji-lpips]@quick"]
    named = paint(attacks="loss")
    assert named.status == 2 and "leave loss out of --attacks" in named.err


@pytest.mark.parametrize("more", [["--batch", 3], ["--batch", 7, "--threads", 2], ["--no-share"]], ids=str)
def test_batches_threads_and_sharing_change_no_bit(paint, more):
    assert paint(limit=4).status == paint(*more, out="other", limit=4).status == 0
    assert Path("other/scores.parquet").read_bytes() == Path("out/scores.parquet").read_bytes()


def test_killed_and_resumed(paint, tmp_path, monkeypatch):
    assert paint(limit=3, out="whole").status == 0
    log = tmp_path / "log"
    command = ["run", "--attacks", ATTACKS, "--dataset", "fluent-emoji", "--target", PAINTER, "--resolution", "32"]
    command += ["--limit", "3", "--threads", "1", "--batch", "2", "--out", "out"]
    environment = {**os.environ, "PAINTER_LOG": str(log), "PAINTER_DIES": "40"}
    killed = subprocess.run([sys.executable, "-m", "mia_bench", *command], env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL and len(log.read_text().splitlines()) == 40
    monkeypatch.setenv("PAINTER_LOG", str(log))
    assert paint("--batch", 2, limit=3).status == 0
    assert Path("out/scores.parquet").read_bytes() == Path("whole/scores.parquet").read_bytes()
    lines = log.read_text().splitlines()
    assert len(set(lines)) == 15 * 7 and 0 < len(lines) - len(set(lines)) <= 2 * 7, "the batch in flight is repeated"


def test_a_sample_that_it_fails_on_costs_itself(paint, tmp_path):
    path = tmp_path / "picky.py"
    path.write_text(PICKY.format(folder=str(TESTS), caption=_a_caption()))
    assert paint(out="good", limit=5).status == 0
    done = paint("--json", target=f"callable:{path}:draw", limit=5)
    result = json.loads(done.out)
    reasons = {f["reason"] for f in result["failures"]}
    assert done.status == 3 and reasons == {f"draw raised AssertionError: not this at {path}:5"}
    (sample,) = {f["sample"] for f in result["failures"]}
    good = {key: value for key, value in tiny.scores(Path("good")).items() if key[1] != sample and "free" in key[0]}
    assert {k: v for k, v in tiny.scores(Path("out")).items() if k in good} == good and len(good) == 24


def _a_caption():
    """Of the first member that is audited."""
    from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji

    return min((s for s in FluentEmoji().samples() if s.member and s.split == "audit"), key=lambda s: s.order).caption


def test_another_version_of_the_function_is_measured_anew(paint, tmp_path, monkeypatch):
    path, log = tmp_path / "mine.py", tmp_path / "log"
    path.write_text((TESTS / "painter.py").read_text())
    monkeypatch.setenv("PAINTER_LOG", str(log))
    counts = []
    for change in ("", "", "\n# changed\n"):
        path.write_text(path.read_text() + change)
        assert paint(target=f"callable:{path}:draw", attacks="wu-iip@quick", limit=2).status == 0
        counts.append(len(log.read_text().splitlines()))
    assert counts == [10, 10, 20]
    paint("--revision", "other weights", target=f"callable:{path}:draw", attacks="wu-iip@quick", limit=2)
    assert len(log.read_text().splitlines()) == 30


def test_a_dry_run_asks_for_nothing(paint, tmp_path, monkeypatch):
    monkeypatch.setenv("PAINTER_LOG", str(tmp_path / "log"))
    done = paint("--dry-run", limit=4)
    assert done.status == 0 and not (tmp_path / "log").exists() and not Path("out").exists()
    rows = {line.split()[0]: line.split()[1:3] for line in done.out.splitlines() if line[:3] in ("wu-", "swe")}
    assert rows == {
        "wu-iip@quick": ["1", "20"],
        "wu-iis[emoji-clip]@quick-training-free": ["1", "20"],
        "sweep[emoji-lpips]@quick": ["6", "120"],
    }
    assert "at most 160 images to be made; how long one takes is the target's to know" in done.out


def test_pictures_that_explain(paint):
    assert paint("--artifacts", 1, attacks="wu-iip@quick", limit=3).status == 0
    assert len(list(Path("out/artifacts").rglob("generated.png"))) == 3
