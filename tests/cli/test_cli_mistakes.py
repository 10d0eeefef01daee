"""A user's mistake: what failed, why, the way out, the right exit status, and no traceback."""

import csv
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

COMMAND = f"{sys.executable} -m mia_bench"
ESCAPES = "\x1b[31m\x07\x9b\u202e\x00"


def picture(path, seed=0, size=(32, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    ("arguments", "status", "said", "fix"),
    [
        (["run", "--attacks", "piaa"], 2, "unknown attack 'piaa': did you mean pia", "mia-bench list"),
        (
            ["run", "--attacks", "clid@nul"],
            2,
            "unknown preset 'clid@nul': did you mean null",
            "mia-bench describe clid",
        ),
        (["run", "--dataset", "fluent-emojy"], 2, "unknown dataset 'fluent-emojy': did you mean fluent-emoji", "list"),
        (
            ["run", "--target", "emoji-relworld"],
            2,
            "unknown target 'emoji-relworld': did you mean emoji-realworld",
            "list",
        ),
        (["run", "-o", "clid.alpa=1"], 2, "option clid.alpa: no such parameter; did you mean alpha", "describe clid"),
        (["run", "-o", "clid.alpha=2"], 2, "option clid.alpha: Input should be less than or equal to 1", "describe"),
        (["run", "-o", "clid"], 2, "option 'clid': not of the form", "-o clid.alpha=0.9"),
        (["run", "-o", "cild.alpha=1"], 2, "unknown attack 'cild': did you mean clid", "list"),
        (["run", "--attacks", "pia", "-o", "clid.alpha=1"], 2, "not selected", "--attacks"),
        (["run", "-k", "pia and"], 2, "not an expression", "-k 'pia and not pian'"),
        (["run", "--attacks", "x*"], 5, "it matches no attack", "mia-bench list attacks"),
        (["run", "-k", "nonsense"], 5, "no attack is left to run", "mia-bench list attacks"),
        (["run", "--dataset", "folder", "--target", "emoji-realworld"], 2, "no path given", "folder:PATH"),
        (["run", "--dataset", "folder:."], 2, "it names no target", "--target"),
        (["run", "--dataset", "folder:nowhere", "--target", "emoji-realworld"], 3, "no such folder", "check the path"),
        (["run", "--dataset", "."], 2, "unknown dataset '.': it is a folder", "--dataset folder:."),
        (["run", "--dataset", "fluent-emoji:x"], 2, "fluent-emoji takes no argument", "--dataset fluent-emoji"),
        (["run", "--target", "emoji-realworld:x"], 2, "emoji-realworld takes no argument", "--target emoji-realworld"),
        (["run", "--target", "./nowhere"], 3, "no such folder", "model_index.json"),
        (["run", "--noise", "nowhere.npz"], 3, "recorded noise nowhere.npz", ".npz"),
        (["run", "--device", "warp", "--limit", "1"], 3, "device 'warp'", "--device cpu"),
        (["run", "-p", "nowhere.py"], 4, "plugin file nowhere.py: FileNotFoundError: no such file", "leave out -p"),
        (["score", "nowhere"], 3, "it has no run.json", "mia-bench run"),
        (["report", "nowhere"], 3, "it has no results.json", "mia-bench run"),
        (["score", "nowhere", "-o", "x"], 2, "not of the form", "-o clid.alpha=0.9"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(cli, tmp_path, arguments, status, said, fix):
    done = cli(*arguments)
    assert done.status == status, done.all
    assert done.out == ""
    first, *rest = done.err.splitlines()
    assert first.startswith("error: ") and said in first
    assert len(rest) == 1 and rest[0].startswith("  fix: ") and fix in rest[0]
    assert not [p for p in tmp_path.rglob("*.parquet")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rn"], "unknown command 'rn': did you mean run"),
        (["run", "--atacks", "pia"], "--attacks"),
        (["run", "--limit", "0"], "--limit"),
        (["run", "--limit", "many"], "not a valid integer"),
        (["run", "--rows", "0"], "--rows"),
        (["run", "--rows", "65537"], "--rows"),
        (["run", "--seed", "-1"], "--seed"),
        (["run", "--dtype", "float8"], "float32"),
        (["run", "extra"], "unexpected extra argument"),
        (["score"], "Missing argument 'RUN'"),
        (["describe"], "Missing argument 'NAME'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(cli, arguments, said):
    done = cli(*arguments)
    assert (done.status, done.out) == (2, "")
    assert said in done.err and "Traceback" not in done.err


def folder_run(cli, folder, *arguments, attacks="loss"):
    options = ["--attacks", attacks, "--target", "tiny", "-p", tiny.__file__, "--out", "out"]
    return cli("run", *options, "--dataset", f"folder:{folder}", *arguments)


@pytest.mark.parametrize("device", ["warp", "cuda:x", "hpu"])
def test_a_device_that_does_not_exist_is_refused_even_if_nothing_is_left_to_measure(tiny_run, device):
    assert tiny_run().status == 0
    done = tiny_run("--device", device)
    assert (done.status, done.out) == (3, "")
    assert f"error: device {device!r}: " in done.err
    assert tiny_run("--collect-only", "--device", device).status == 3


def test_what_a_library_says_is_cut_to_one_short_line(tiny_run):
    done = tiny_run("--device", "mps")
    first, fix = done.err.splitlines()[-2:]
    assert first.startswith("error: device 'mps': ") and len(first) < 200 and "--device cpu" in fix


def test_an_audit_set_of_members_alone_is_scored_and_not_compared(cli, tmp_path):
    for n in range(4):
        picture(tmp_path / "data" / "members" / f"{n}.png", n)
    done = folder_run(cli, tmp_path / "data")
    assert done.status == 5
    assert "4 members, 0 non-members" in done.out
    assert (tmp_path / "out" / "scores.parquet").exists()


def test_images_without_labels_are_scored_and_told_how_to_be_labelled(cli, tmp_path):
    for n in range(3):
        picture(tmp_path / "data" / f"{n}.png", n)
    done = folder_run(cli, tmp_path / "data")
    assert done.status == 5
    assert "3 samples have no label; their scores are in out/scores.parquet" in done.out
    assert "column `member`" in done.out
    assert cli("report", "out").out == done.out


def test_a_caption_attack_without_captions(cli, tmp_path):
    for n in range(4):
        picture(tmp_path / "data" / ("members", "nonmembers")[n % 2] / f"{n}.png", n)
    done = folder_run(cli, tmp_path / "data", attacks="clid")
    assert done.status == 2
    assert "attack 'clid': it needs captions and no sample has one" in done.err
    assert "leave clid out" in done.err
    done = folder_run(cli, tmp_path / "data", attacks="clid*,loss")
    assert done.status == 0
    assert "skipped clid: it needs captions" in done.out


def test_bad_images_among_good_ones(cli, tmp_path):
    data = tmp_path / "data"
    for n in range(8):
        picture(data / ("members", "nonmembers")[n % 2] / f"{n}.png", n)
    (data / "members" / "text.png").write_text("not an image")
    whole = picture(data / "members" / "cut.png", 20).read_bytes()
    (data / "members" / "cut.png").write_bytes(whole[: len(whole) // 2])
    picture(data / "members" / "dot.png", 21, (1, 1))
    done = folder_run(cli, data)
    assert done.status == 3
    for name in ("text.png", "cut.png", "dot.png"):
        assert f"members/{name}" in done.out
    assert "1x1 px is too small" in done.out
    assert "4 members, 4 non-members (3 more left out);" in done.out.splitlines()[0]
    row = next(line for line in done.out.splitlines() if line.startswith("loss"))
    assert row.split()[1] == "8"


def test_no_readable_image_at_all(cli, tmp_path):
    for kind in ("members", "nonmembers"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        (tmp_path / "data" / kind / "x.png").write_text(kind)
    done = folder_run(cli, tmp_path / "data")
    assert done.status == 3
    assert "empty loss: no sample was measured: not an image in a known format" in done.out


@pytest.mark.parametrize("command", ["report", "score"])
def test_control_characters_of_strangers_do_not_reach_the_terminal(cli, tmp_path, command):
    name = ESCAPES.replace("\x00", "")
    data = tmp_path / f"data{name}"
    for n in range(4):
        picture(data / f"{n}.png", n)
    (data / "bad.png").write_text("no")
    with (data / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "caption", "member", "id"])
        rows.writerows([f"{n}.png", f"a cat{name}", n % 2, f"{n}{name}"] for n in range(4))
        rows.writerow(["bad.png", f"bad{name}", 1, f"bad{name}"])
    printed = [folder_run(cli, data, attacks="clid,loss"), folder_run(cli, data, "--collect-only")]
    printed += [folder_run(cli, data, "--json"), folder_run(cli, tmp_path / f"no{name}")]
    printed += [cli(command, "out"), cli(command, "out", "--json"), cli("describe", f"x{name}")]
    printed += [folder_run(cli, data, "-x")]
    assert [p.status for p in printed] == [3, 0, 3, 3, *([0 if command == "report" else 3] * 2), 2, 3]
    for done in printed:
        assert {c for c in done.all if not c.isprintable()} == {"\n"}


@pytest.mark.parametrize("arguments", ["list", "describe clid", "--help"])
def test_an_output_that_cannot_be_written_is_named(arguments):
    done = subprocess.run(f"{COMMAND} {arguments} > /dev/full", shell=True, capture_output=True, text=True)
    first, fix = done.stderr.splitlines()
    assert (done.returncode, first) == (2, "error: standard output: No space left on device")
    assert fix.startswith("  fix: free some space")


def test_errors_that_cannot_be_written_leave_the_status():
    assert subprocess.run(f"{COMMAND} describe nothing 2> /dev/full", shell=True).returncode == 2


INTERRUPTED = """
import sys

class CtrlC:
    def find_spec(self, name, *rest):
        if name == "{module}":
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
sys.argv = ["mia-bench", "list"]
from mia_bench.__main__ import main
main()
"""


@pytest.mark.parametrize("module", ["mia_bench.cli", "click", "mia_bench.errors", "mia_bench.plugins", "pydantic"])
def test_ctrl_c_during_imports_is_one_line(module):
    code = INTERRUPTED.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "interrupted")


def test_the_command_begins_where_ctrl_c_is_heeded():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"mia-bench": "mia_bench.__main__:main"}


def test_a_closed_pipe_is_no_error():
    command = f"set -o pipefail; {COMMAND} list | true"
    done = subprocess.run(command, shell=True, executable="/bin/bash", capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


RAISED = """
import errno, sys
import click
import mia_bench.report.catalogue as catalogue
from mia_bench.cli import main

def fail(*args, **kwargs):
    raise {error}

catalogue.show_catalogue = fail
sys.argv = ["mia-bench", "list"]
main()
"""


@pytest.mark.parametrize(
    "error",
    [
        "BrokenPipeError(errno.EPIPE, 'Broken pipe')",
        "EOFError('Ran out of input')",
        "PermissionError(errno.EACCES, 'Permission denied', 'some/file')",
        "ConnectionRefusedError(errno.ECONNREFUSED, 'Connection refused')",
        "OSError('no errno')",
        "OSError(errno.ENOSPC, 'No space left on device', 'some/file')",
        "click.Abort()",
    ],
)
def test_an_error_of_the_system_is_not_taken_for_one_of_the_output_or_ctrl_c(error):
    code = RAISED.format(error=error)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (70, "")
    assert f"error: internal error: {error.split('(')[0].removeprefix('click.')}" in done.stderr
    debug = {**os.environ, "MIA_BENCH_DEBUG": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=debug)
    assert "Traceback" in done.stderr and "in fail" in done.stderr


def test_a_page_that_cannot_be_written_is_named(cli):
    done = cli("leaderboard", "--results", Path(__file__).parents[2] / "benchmarks" / "results", "--out", "no/x.md")
    assert (done.status, done.out) == (2, "")
    assert done.err == "error: file no/x.md: No such file or directory\n  fix: give a path that can be written\n"
