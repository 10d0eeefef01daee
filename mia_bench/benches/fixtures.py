"""What the fixtures `mia_run`, `mia_target` and `mia_dataset` hand out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mia_bench.benches.shared import SharedRuns
from mia_bench.dataset import Dataset
from mia_bench.engine.named import open_dataset, open_target
from mia_bench.engine.paired import FinishedRun, finished_run
from mia_bench.engine.prepare import RunOptions, open_device
from mia_bench.engine.run import run
from mia_bench.errors import NothingError, UsageError
from mia_bench.plugins import Registry, suggest
from mia_bench.result import Row
from mia_bench.target import Target, TargetOptions

Files = Sequence[Path | str]


@dataclass(frozen=True)
class SessionRun(FinishedRun):
    """A finished run of this session."""

    def row(self, label: str) -> Row:
        """The row of an attack or control, e.g. `run.row("clid").evaluation.auc.value`.

        Raises:
            NothingError: There is none, or it has no scores.
        """
        rows = {row.label: row for row in self.result.rows}
        if label not in rows:
            why = self.result.skipped.get(label) or suggest(label, rows)
            raise NothingError(f"no row {label!r} in {self.folder}", why, "add it to the attacks of `mia_run`")
        if rows[label].status != "ok":
            raise NothingError(f"{label} in {self.folder}", f"it has no scores: {rows[label].reason}")
        return rows[label]


@dataclass(frozen=True)
class Session:
    """What the fixtures share.

    Attributes:
        runs: Where run folders go.
        target: Of `--mia-target`, where a test names none.
    """

    runs: SharedRuns
    target: str | None

    def run(self, attacks: str = "all", *, plugins: Files = (), **options: Any) -> SessionRun:
        """Run attacks; the same arguments give the same run, made once in a session.

        Args:
            attacks: As `mia-bench run --attacks`.
            plugins: Plugin files.
            options: Fields of `mia_bench.engine.prepare.RunOptions`: `dataset`, `target`, `limit`, `seed`, ...

        Raises:
            MiaBenchError: The run cannot be made.
        """
        if unknown := sorted(options.keys() - (RunOptions.__dataclass_fields__.keys() - {"out"})):
            known = RunOptions.__dataclass_fields__
            raise UsageError(f"mia_run({unknown[0]}=...)", suggest(unknown[0], known), f"it takes {', '.join(known)}")
        wanted = RunOptions(attacks=attacks, **({"target": self.target} | options))
        # An object's repr may be that of another one in another process.
        where = "" if wanted.target is None or isinstance(wanted.target, str) else self.runs.worker
        key = hashlib.sha256(f"{where} {[*map(str, plugins)]} {wanted!r}".encode()).hexdigest()

        def work(folder: Path) -> None:
            run(registry_of(plugins), replace(wanted, out=folder))

        return SessionRun(**vars(finished_run(self.runs.once(f"mia_run-{key[:12]}", work))))

    def load(
        self,
        spec: str | None = None,
        *,
        plugins: Files = (),
        device: str | None = None,
        dtype: str = "float32",
        rows: int | None = None,
        threads: int = 1,
        **options: Any,
    ) -> Target:
        """Load a target, ready to be asked: see `mia_bench.testing.batch_of`.

        Args:
            spec: As `mia-bench run --target`; that of `--mia-target` if not given.
            plugins: Plugin files.
            device: As `--device`.
            dtype: As `--dtype`.
            rows: As `--rows`.
            threads: As `--threads`.
            options: Fields of `TargetOptions`, e.g. `lora`.

        Raises:
            MiaBenchError: It cannot be loaded.
        """
        if (spec or self.target) is None:
            raise UsageError("mia_target()", "no target is named", "name one, or run pytest with --mia-target")
        target = open_target(registry_of(plugins), spec or self.target, TargetOptions(**options))
        target.open(device=open_device(device), dtype=dtype, rows=rows, threads=threads)
        return target

    def dataset(self, spec: str, *, plugins: Files = ()) -> Dataset:
        """A dataset, as `mia-bench run --dataset`; its `samples()` are there.

        Raises:
            MiaBenchError: There is no such dataset.
        """
        return open_dataset(registry_of(plugins), spec)


def registry_of(files: Files) -> Registry:
    """All plugins, with those of some files."""
    return Registry.load([Path(file) for file in files])
