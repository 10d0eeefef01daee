"""An outside package, really installed, and what becomes of broken ones beside it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tiny

from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.run import run
from mia_bench.plugins import Registry

EXAMPLE = Path(__file__).parents[1] / "examples" / "mia-bench-example"
FILE = EXAMPLE / "mia_bench_example.py"

BROKEN = {
    "raises": "raise OSError('libcuda.so.12: cannot open shared object file')",
    "exits": "import sys\nsys.exit('no licence')",
    "misspelt": FILE.read_text().replace("def mia_bench_attacks", "def mia_bench_attack"),
    "duplicate": FILE.read_text().replace('name="flip"', 'name="pia"'),
    "unfinished": FILE.read_text().replace("def measure(", "def measures("),
}


def install(source, site):
    """What `pip install --no-deps --target SITE SOURCE` does, without pip and network: build the wheel, unpack it."""
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(site)]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
    wheel = site / built.stdout.split()[-1]
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    wheel.unlink()


def package(folder, name, text):
    """The example under another name, with another module."""
    folder.mkdir()
    module = f"broken_{name}"
    described = (EXAMPLE / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(
        described.replace("mia-bench-example", f"mia-bench-{name}").replace(
            'example = "mia_bench_example"', f'{name} = "{module}"'
        )
        + f'\n[tool.hatch.build.targets.wheel]\ninclude = ["{module}.py"]\n'
    )
    (folder / f"{module}.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of installed packages: the example, and a broken one of each kind."""
    site = tmp_path_factory.mktemp("site")
    install(EXAMPLE, site)
    for name, text in BROKEN.items():
        install(package(tmp_path_factory.mktemp("source") / name, name, text), site)
    return site


def mia_bench(site, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [str(Path(sys.executable).with_name("mia-bench")), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def listed(site):
    done = mia_bench(site, "list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_an_installed_attack_is_listed_like_a_bundled_one(listed):
    flip = next(a for a in listed["attacks"] if a["name"] == "flip")
    assert flip["access"] == "loss"
    plugin = next(p for p in listed["plugins"] if p["name"] == "example")
    assert plugin["origin"] == "mia-bench-example 0.1.0"
    assert (plugin["status"], plugin["provides"]) == ("ok", ["flip"])


def test_broken_packages_are_listed_with_their_fault_and_harm_nobody(listed):
    plugins = {p["name"]: p for p in listed["plugins"]}
    said = {
        "raises": "OSError: libcuda.so.12",
        "exits": "SystemExit: no licence",
        "misspelt": "mia_bench_attack",
        "duplicate": "the name 'pia' is taken by plugin pia (mia-bench",
        "unfinished": "Flip does not implement measure",
    }
    assert {name for name, p in plugins.items() if p["status"] == "broken"} == set(said)
    for name, text in said.items():
        assert text in plugins[name]["error"]
    assert {a["name"] for a in listed["attacks"]} == {*Registry.load().attacks, "flip"}


def test_a_run_with_the_installed_attack_yields_a_row(site, tmp_path):
    done = mia_bench(site, "run", "--attacks", "flip,loss", "--limit", "8", "--out", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    rows = {r["label"]: r for r in json.loads(done.stdout)["rows"]}
    assert (rows["flip"]["status"], rows["flip"]["n"], rows["flip"]["queries"]) == ("ok", 16, 2.0)
    assert rows["loss"]["status"] == "ok"


def test_selecting_a_broken_package_ends_with_its_fault(site, tmp_path):
    done = mia_bench(site, "run", "--attacks", "raises,loss", "--out", str(tmp_path / "run"))
    assert done.returncode == 4
    assert "mia-bench-raises 0.1.0" in done.stderr
    assert "libcuda.so.12" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_describing_a_broken_package_shows_its_traceback(site):
    done = mia_bench(site, "describe", "raises")
    assert done.returncode == 0
    assert "Traceback" in done.stdout and "libcuda.so.12" in done.stdout


def test_the_example_is_as_small_as_promised():
    assert len(FILE.read_text().splitlines()) <= 40
    assert len((EXAMPLE / "pyproject.toml").read_text().splitlines()) <= 12


def test_the_same_file_runs_without_being_installed(tmp_path):
    made = Registry.load([FILE])
    made.datasets["given"] = tiny.dataset(tiny.icons(4, 4), targets=("emoji-realworld",))
    result = run(made, RunOptions(attacks="flip", dataset="given", out=tmp_path))
    assert (tiny.row(result, "flip").status, tiny.row(result, "flip").n) == ("ok", 8)
