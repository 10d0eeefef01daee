"""A `*.bench.toml` as a pytest node, and its attacks as items."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mia_bench.benches.benchmark import Benchmark, BenchRun
from mia_bench.benches.shared import SharedRuns
from mia_bench.errors import MiaBenchError
from mia_bench.report.text import printable

MARK = "mia_bench"
TARGET = "MIA_BENCH_TARGET"  # in the environment: as --mia-target
RUNS = pytest.StashKey[SharedRuns]()


def runs_of(config: pytest.Config) -> SharedRuns:
    """The runs of this session."""
    if RUNS not in config.stash:
        config.stash[RUNS] = SharedRuns.of(config)
    return config.stash[RUNS]


def target_of(config: pytest.Config) -> str | None:
    """The target that the user names for all benchmarks."""
    return config.getoption("mia_target") or os.environ.get(TARGET) or None


def explained(error: MiaBenchError) -> str:
    """An error as the command line prints it."""
    return printable(f"{error}\n  fix: {error.fix}" if error.fix else error)


class BenchFile(pytest.File):
    """One benchmark; it is run when the first of its items is."""

    benchmark: Benchmark
    done: BenchRun | None = None
    failed: str = ""

    def collect(self) -> Iterator[BenchItem]:
        try:
            update = bool(self.config.getoption("mia_update_baseline"))
            self.benchmark = Benchmark.open(self.path, target_of(self.config), update)
        except MiaBenchError as error:
            raise self.CollectError(explained(error)) from None
        for label in self.benchmark.labels:
            try:
                yield BenchItem.from_parent(self, name=f"{self.benchmark.shown}/{label}", label=label)
            except pytest.fail.Exception as error:  # --strict-markers
                raise self.CollectError(f"{self.path}: marks: {error}") from None

    def setup(self) -> None:
        """Run it with the attacks that are left after deselection."""
        if self.done is None and not self.failed:
            # Another collector of the same file, as the command line may make one for each id, is another node.
            own = [i for i in self.session.items if isinstance(i, BenchItem) and i.path == self.path]
            try:
                with self._progress():
                    labels = {item.label for item in own}
                    self.done = self.benchmark.measure(labels, runs_of(self.config), self._command())
            except MiaBenchError as error:
                self.failed = explained(error)
        if self.failed:
            pytest.fail(self.failed, pytrace=False)

    def _command(self) -> str:
        """What records a new baseline."""
        given = self.config.getoption("mia_target")
        target = ["--mia-target", given] if given else []
        return shlex.join(["pytest", os.path.relpath(self.path), *target, "--mia-update-baseline"])

    @contextmanager
    def _progress(self) -> Iterator[None]:
        """Show it with -v: a run may take minutes."""
        capture = self.config.pluginmanager.getplugin("capturemanager")
        if self.config.get_verbosity() < 1 or capture is None or hasattr(self.config, "workerinput"):
            yield
            return
        from mia_bench.report.progress import reporter

        with capture.global_and_fixture_disabled(), reporter(self.benchmark.registry):
            yield


class BenchItem(pytest.Item):
    """One attack of a benchmark."""

    def __init__(self, *, label: str, **given: Any) -> None:
        super().__init__(**given)
        self.label = label
        for mark in (MARK, *self.file.benchmark.bench.marks):
            self.add_marker(mark)
        if self.config.pluginmanager.hasplugin("timeout"):
            self.add_marker(pytest.mark.timeout(0))  # a session's limit is for tests; the first item waits for the run

    @property
    def file(self) -> BenchFile:
        assert isinstance(self.parent, BenchFile)
        return self.parent

    def runtest(self) -> None:
        assert self.file.done is not None, "its file was set up"
        verdict = self.file.done.verdict(self.label)
        self.user_properties += verdict.properties
        if verdict.outcome == "skipped":
            pytest.skip(printable(verdict.said))
        if verdict.outcome == "failed":
            pytest.fail(printable(verdict.said), pytrace=False)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, self.name
