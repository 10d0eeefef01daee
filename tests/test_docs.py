"""The README says what is true."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mia_bench.attack import Control
from mia_bench.cli import COMMANDS, group
from mia_bench.plugins import Registry
from mia_bench.report.manual import PAGES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_two_commands_come_first():
    assert re.findall(r"^```\n(.*)\n```$", README, re.MULTILINE)[:2] == [
        "pip install -e . && mia-bench run --attacks all",
        'pip install -e ".[test]" && pytest',
    ]


def test_example_is_the_example_file():
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert code and code[1] == (ROOT / "examples/mia-bench-example/mia_bench_example.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", re.findall(r"<!-- table: mia-bench (.*?) -->", README))
def test_tables_are_what_their_commands_print(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    printed = CliRunner().invoke(group, command.split(), catch_exceptions=False).output
    block = README.split(f"<!-- table: mia-bench {command} -->\n```\n")[1].split("```")[0]
    assert [line.rstrip() for line in block.splitlines()] == [line.rstrip() for line in printed.splitlines()]


def test_there_is_a_table():
    assert "<!-- table: mia-bench report benchmarks/results/quick/emoji-realworld-seed0.json -->" in README


def test_leaderboard_is_what_the_results_give(monkeypatch):
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(group, ["leaderboard", "--check"], standalone_mode=False)
    assert done.return_value == 0, done.output


@pytest.mark.parametrize("benchmark", ["embedded", "speed"])
def test_pages_with_measured_tables_are_what_the_results_give(benchmark):
    script = ROOT / "benchmarks" / benchmark / "page.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


GENERATED = {"all": "attacks", "datasets": "datasets", "targets": "targets"} | {
    name: f"reference/{name}" for name in PAGES
}


@pytest.mark.parametrize(("name", "page"), GENERATED.items())
def test_pages_are_what_metadata_give(name, page):
    printed = CliRunner().invoke(group, ["describe", name, "--markdown"], catch_exceptions=False).output
    written = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert written == printed, f"fix: mia-bench describe {name} --markdown > docs/{page}.md"


def test_every_attack_and_command_is_named():
    for name in Registry.load().attacks:
        assert f"`{name}`" in README
    for name in COMMANDS:
        assert f"mia-bench {name}" in README


def test_recorded_results_come_from_a_clean_checkout():
    for path in (ROOT / "benchmarks" / "results").rglob("emoji-*.json"):
        for environment in json.loads(path.read_text(encoding="utf-8"))["environments"]:
            assert environment["commit"] and not environment["dirty"], path.name


def test_controls_are_marked_as_such():
    for name, cls in Registry.load().attacks.items():
        if issubclass(cls, Control):
            assert f"| `{name}` (control) |" in README
