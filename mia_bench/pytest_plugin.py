"""The pytest plugin: `*.bench.toml` files as items, and fixtures for tests of one's own.

    pytest benchmarks/                          every attack of every benchmark, against its recorded baseline
    pytest benchmarks/ --mia-target runs/ckpt   the same of another checkpoint: does it leak more?
    pytest benchmarks/ --mia-update-baseline    record what is found, on purpose

It costs a session that uses none of this nothing: all it needs is imported when first used. `-p no:mia-bench` turns it
off.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mia_bench.benches import RECORDED, SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from mia_bench.benches.fixtures import Session, SessionRun
    from mia_bench.dataset import Dataset
    from mia_bench.target import Target


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("mia-bench", "membership-inference benchmarks (*.bench.toml)")
    group.addoption(
        "--mia-target",
        metavar="SPEC",
        help="Run benchmarks on this model in place of theirs, as `mia-bench run --target`; also MIA_BENCH_TARGET.",
    )
    group.addoption(
        "--mia-update-baseline",
        action="store_true",
        help="Record what benchmarks give as their baselines, instead of comparing; refused where CI is set.",
    )
    group.addoption(
        "--mia-runs",
        metavar="FOLDER",
        help="Keep run folders here, and go on with what they hold. By default each session measures anew.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker of all items of benchmarks; no baseline is recorded by a gate.

    Raises:
        pytest.UsageError: One is to be recorded in continuous integration.
    """
    if config.getoption("mia_update_baseline") and os.environ.get("CI", "").lower() in ("true", "1"):
        why = "a gate that records what it finds is always green; record where a person looks at it, and commit that"
        raise pytest.UsageError(f"--mia-update-baseline: refused where CI={os.environ['CI']}: {why}")
    config.addinivalue_line("markers", "mia_bench: an attack of a *.bench.toml")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take the files that define benchmarks."""
    if not file_path.name.endswith(SUFFIX):
        return None
    from mia_bench.benches.items import BenchFile

    return BenchFile.from_parent(parent, path=file_path)


def pytest_report_teststatus(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str, str] | None:
    """An item that was recorded has not passed anything."""
    if report.when == "call" and report.passed and _recorded(report):
        return "recorded", "R", "RECORDED"
    return None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the baselines that were recorded."""
    reports = terminalreporter.stats.get("recorded", [])
    for folder in dict.fromkeys(folder for report in reports for folder in _recorded(report)):
        terminalreporter.write_line(f"recorded a baseline, to be committed: {folder}")


def _recorded(report: Any) -> list[str]:
    return [entry[1] for entry in report.user_properties if entry[0] == RECORDED]


@pytest.fixture(scope="session")
def _mia_session(pytestconfig: pytest.Config) -> Session:
    from mia_bench.benches.fixtures import Session
    from mia_bench.benches.items import runs_of, target_of

    return Session(runs_of(pytestconfig), target_of(pytestconfig))


@pytest.fixture(scope="session")
def mia_run(_mia_session: Session) -> Callable[..., SessionRun]:
    """Run attacks: `mia_run("clid,pia", target="path/to/pipeline", dataset="folder:images", limit=50)`.

    Takes the fields of `mia_bench.engine.prepare.RunOptions` and `plugins=[FILE, ...]`; gives `result`, `folder`,
    `scores` and `row(label)`. Runs with the same arguments are made once in a session, also by xdist workers.
    """
    return _mia_session.run


@pytest.fixture(scope="session")
def mia_target(_mia_session: Session) -> Callable[..., Target]:
    """Load a target by name or path: `mia_target("emoji-realworld", rows=8)`, once in a session."""
    return _remembered(_mia_session.load)


@pytest.fixture(scope="session")
def mia_dataset(_mia_session: Session) -> Callable[..., Dataset]:
    """Open a dataset by name: `mia_dataset("fluent-emoji").samples()`."""
    return _mia_session.dataset


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    found: dict[str, Any] = {}

    def call(*args: Any, **options: Any) -> Any:
        key = repr((args, sorted(options.items())))
        if key not in found:
            found[key] = function(*args, **options)
        return found[key]

    return call
