"""One benchmark: which attacks it has, one run of those that are asked for, and what became of each."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mia_bench.benches import RECORDED
from mia_bench.benches.definition import Bench, read_bench
from mia_bench.benches.shared import SharedRuns
from mia_bench.engine.baseline import FILES, NOT_RECORDED, record
from mia_bench.engine.compare import Comparison, compare
from mia_bench.engine.label import Label
from mia_bench.engine.named import open_dataset, open_target, pair, spec_text
from mia_bench.engine.paired import finished_run
from mia_bench.engine.plan import read_plan
from mia_bench.engine.prepare import DEFAULT_DATASET, RunOptions
from mia_bench.engine.run import read_result, run
from mia_bench.engine.select import select
from mia_bench.errors import BrokenPluginError, MiaBenchError, NothingError, UnavailableError, UsageError
from mia_bench.plugins import Registry
from mia_bench.result import Result, Row
from mia_bench.store import Store

Properties = tuple[tuple[str, str | float], ...]


@dataclass(frozen=True)
class Verdict:
    """What became of one attack.

    Attributes:
        outcome: What its item does.
        said: Why, if it does not pass; the first line says most.
        properties: For machines: metric with interval, verdict.
    """

    outcome: Literal["passed", "failed", "skipped", "recorded"]
    said: str = ""
    properties: Properties = ()


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that can be run.

    Attributes:
        bench: Its definition.
        registry: All plugins, with its own.
        options: Of its run.
        update: Whether that is to be recorded as its baseline.
        shown: Dataset and target, as its items' names begin.
        labels: Its attacks: those selected, and those of the baseline that `all` or a glob should still find.
    """

    bench: Bench
    registry: Registry
    options: RunOptions
    update: bool
    shown: str
    labels: tuple[str, ...]

    @classmethod
    def open(cls, path: Path, target: str | None = None, update: bool = False) -> Benchmark:
        """The benchmark defined in a file; loads nothing heavy.

        Args:
            path: A `*.bench.toml`.
            target: In place of the target that it names.
            update: Whether a baseline is to be recorded.

        Raises:
            MiaBenchError: The file is wrong, or names what there is not.
        """
        bench = read_bench(path)
        registry, options = Registry.load(bench.plugin_files), bench.run_options(target, update)
        dataset, given = pair(registry, options.dataset, options.target, DEFAULT_DATASET)
        preset = "" if options.full else open_dataset(registry, dataset).meta.preset
        kind = open_target(registry, given, options.target_options).meta.kind
        selected = select(registry, bench.pattern, options=options.options, preset=preset)
        labels = [
            str(Label.parse(one.label).of(one.cls(one.params.resolved(kind)))) for one in selected if not one.control
        ]
        if not labels:
            raise NothingError(f"{path}: attacks", f"{bench.pattern!r} selects none", "`mia-bench list attacks`")
        if (bench.baseline_folder / "run.json").exists():
            planned = read_plan(Store(bench.baseline_folder)).attacks
            labels += [a.label for a in planned if not a.control and bench.covers(a.label)]
        shown = f"{dataset}/{bench.target or spec_text(given)}"
        return cls(bench, registry, options, update, shown, tuple(dict.fromkeys(labels)))

    def measure(self, labels: Collection[str], runs: SharedRuns, command: str) -> BenchRun:
        """Run some of its attacks, once in a session, and hold them against the baseline or record a new one.

        Args:
            labels: Which.
            runs: Of the session.
            command: What records a baseline, for messages.

        Raises:
            MiaBenchError: There is no baseline to compare with or it is to be recorded in part, or the run cannot be
                made.
        """
        baseline = self.bench.baseline_folder
        if self.update and set(labels) != set(self.labels):
            missing = ", ".join(sorted(set(self.labels) - set(labels)))
            fix = f"select every attack: `{command}`"
            raise UsageError(f"baseline {baseline}", f"it is recorded as a whole, and this leaves out {missing}", fix)
        if not self.update:
            _check_baseline(baseline, command)  # before anything is measured

        def work(folder: Path) -> None:
            run(self.registry, replace(self.options, only=frozenset(labels), out=folder, command=command))
            if self.update:
                self._check_whole(read_result(folder))
                record(folder, baseline)

        # Two definitions may have one name, and a folder keeps the results of one model.
        key = hashlib.sha256(f"{self.bench.path.resolve()} {self.options.target}".encode()).hexdigest()
        folder = runs.once(f"{self.bench.name}-{key[:8]}", work)
        result = read_result(folder)
        compared = None if self.update else compare(baseline, folder, self.bench.gate.gate(sorted(labels)))
        return BenchRun(self, folder, result, compared, command)

    def broken(self, label: str) -> str:
        """Why an attack cannot be had, if its plugin is broken."""
        try:
            self.registry.attack(Label.parse(label).name)
        except BrokenPluginError as error:
            return error.why
        except UsageError:
            return ""
        return ""

    def _check_whole(self, result: Result) -> None:
        """Beside what `record` refuses, a committed baseline has every attack and sample of its definition.

        Raises:
            UnavailableError: A plugin is broken, or samples are missing of attacks that have scores.
        """
        for label in self.labels:
            if why := self.broken(label):
                raise UnavailableError(f"attack {label}", why, NOT_RECORDED)
        if result.failures and all(row.status == "ok" or row.control for row in result.rows):
            one = result.failures[0]
            raise UnavailableError(f"sample {one.sample!r}", f"left out: {one.reason}", NOT_RECORDED)


@dataclass(frozen=True)
class BenchRun:
    """A benchmark after its run; `compared` is None if that was recorded."""

    benchmark: Benchmark
    folder: Path
    result: Result
    compared: Comparison | None
    command: str

    def verdict(self, label: str) -> Verdict:
        """What became of one attack."""
        rows = [row for row in self.compared.rows if row.label == label] if self.compared else []
        if label in self.result.skipped and not rows:
            return Verdict("skipped", self.result.skipped[label])
        own = next((row for row in self.result.rows if row.label == label), None)
        properties = self._properties(own)
        if self.compared is None:
            if own is None:
                return Verdict("skipped", "there is no such attack any more: dropped from the baseline")
            said = str(self.benchmark.bench.baseline_folder)
            return Verdict("recorded", said, (*properties, (RECORDED, said)))
        where = f"{label} on {self.result.target}"
        if not rows:
            why = "the baseline does not have it" if self.compared.rows else self.compared.problem
            return self._failed([f"{where}: {why}"], properties)
        properties += (("verdict", " ".join(dict.fromkeys(row.verdict for row in rows))),)
        if wrong := [row for row in rows if row.regressed or not row.compared]:
            first, *more = [line for row in wrong for line in row.lines()]
            if why := self.benchmark.broken(label):
                more.insert(0, f"  {why}")
            return self._failed([first.replace(label, where, 1), *more], properties)
        return Verdict("passed", properties=properties)

    def _failed(self, lines: list[str], properties: Properties) -> Verdict:
        bench = self.benchmark.bench
        lines += [f"run: {self.folder}", f"baseline: {bench.baseline_folder}", f"if that is meant: {self.command}"]
        return Verdict("failed", "\n".join(lines), properties)

    def _properties(self, row: Row | None) -> Properties:
        found: dict[str, str | float | None] = {"target": self.result.target}
        if row and row.evaluation:
            auc = row.evaluation.auc
            found |= {"samples": row.n, "auc": auc.value, "auc_low": auc.low, "auc_high": auc.high}
        return tuple((name, value) for name, value in found.items() if value is not None)


def _check_baseline(baseline: Path, command: str) -> None:
    """See that there is something to compare with.

    Raises:
        UnavailableError: There is no baseline, or it is damaged.
    """
    if not any((baseline / name).exists() for name in FILES):
        fix = f"record one on purpose and commit it: `{command}`"
        raise UnavailableError(f"baseline {baseline}", "there is none yet", fix)
    again = f"restore it from version control, or record it anew: `{command}`"
    for name in FILES:
        if not (baseline / name).exists():
            raise UnavailableError(f"baseline {baseline}", f"it has no {name}", again)
    try:
        finished_run(baseline)
    except MiaBenchError as error:
        raise UnavailableError(f"baseline {baseline}", error.why, again) from error
