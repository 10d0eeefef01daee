"""`mia-bench new`: what it writes runs at once, passes its own test, and is the example of the README."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mia_bench.plugins import Registry
from mia_bench.skeleton import KINDS, Names, rendered

EXAMPLE = Path(__file__).parents[2] / "examples" / "mia-bench-example"


def pytest_in(folder, *arguments):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path()})


def path():
    return os.pathsep.join(sys.path)


@pytest.mark.parametrize("kind", KINDS)
def test_it_runs_and_passes_its_test(cli, tmp_path, kind):
    done = cli("new", kind, f"my-{kind}")
    assert done.status == 0, done.err
    said = dict(line.split(": ", 1) for line in done.out.splitlines() if ": " in line)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"my_{kind}.py", f"test_my_{kind}.py"]
    _, *run = shlex.split(said["run it"])
    assert run[:3] == ["run", "-p", f"my_{kind}.py"] and run[-2:] == ["--limit", "8"]
    ran = cli(*run, "--threads", 1)
    assert ran.status == 0, ran.err
    tested = pytest_in(tmp_path, *shlex.split(said["test it"])[1:])
    assert tested.returncode == 0, tested.stdout


def test_a_package(cli, tmp_path):
    done = cli("new", "attack", "my-idea", "--package", "--out", "deep/er")
    folder = tmp_path / "deep" / "er" / "mia-bench-my-idea"
    assert done.status == 0 and "pip install deep/er/mia-bench-my-idea" in done.out
    files = {"mia_bench_my_idea.py", "test_mia_bench_my_idea.py", "pyproject.toml"}
    assert {p.name for p in folder.iterdir()} == files
    assert 'my-idea = "mia_bench_my_idea"' in (folder / "pyproject.toml").read_text()
    registry = Registry.load([folder / "mia_bench_my_idea.py"])
    assert registry.attack("my-idea").__name__ == "MyIdea"
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=folder, check=True, capture_output=True)
    assert list(tmp_path.glob("mia_bench_my_idea-*.whl"))


def test_the_example_is_what_it_writes():
    names = Names("attack", "flip", "mia_bench_example", "mia-bench-example", "example")
    files = rendered(names, package=True)
    assert files == {name: (EXAMPLE / name).read_text(encoding="utf-8") for name in files}
    assert {p.name for p in EXAMPLE.iterdir() if p.is_file()} == set(files)


@pytest.mark.parametrize(
    ("kind", "name", "why"),
    [
        ("attack", "loss", "there is one already"),
        ("dataset", "fluent-emoji", "there is one already"),
        ("encoder", "pixels", "there is one already"),
        ("attack", "My", "lower-case letters"),
        ("attack", "my--idea", "lower-case letters"),
        ("attack", "../idea", "lower-case letters"),
        ("attack", "json", "Python already has something called json"),
        ("attack", "lambda", "Python already has something called lambda"),
        ("attack", "torch", "Python already has something called torch"),
    ],
)
def test_names_that_cannot_be(cli, tmp_path, kind, name, why):
    done = cli("new", kind, name)
    assert done.status == 2 and why in done.err and "fix:" in done.err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(cli, tmp_path):
    (tmp_path / "test_mine.py").write_text("precious")
    done = cli("new", "attack", "mine")
    assert done.status == 2 and "test_mine.py: it is there already" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["test_mine.py"]


def test_what_cannot_be_written(cli, tmp_path):
    (tmp_path / "file").write_text("")
    done = cli("new", "attack", "mine", "--out", "file")
    assert done.status == 2 and "file" in done.err
