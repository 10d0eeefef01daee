"""Every hook a plugin may implement. All are optional; all names start with `mia_bench_`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from mia_bench.attack import Attack
    from mia_bench.dataset import Dataset
    from mia_bench.encoder import Encoder
    from mia_bench.engine.events import BatchMeasured, RunFinished, RunStarted
    from mia_bench.executor import Executor
    from mia_bench.target import Target

PROJECT = "mia_bench"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def mia_bench_attacks() -> Iterable[type[Attack]]:  # type: ignore[empty-body]
    """Attack and control classes this plugin brings. Import torch inside their methods only. Since 0.1."""


@hookspec
def mia_bench_datasets() -> Iterable[type[Dataset]]:  # type: ignore[empty-body]
    """Dataset classes this plugin brings. Since 0.1."""


@hookspec
def mia_bench_targets() -> Iterable[type[Target]]:  # type: ignore[empty-body]
    """Target classes this plugin brings: single models, or families that take a path. Since 0.1."""


@hookspec
def mia_bench_encoders() -> Iterable[type[Encoder]]:  # type: ignore[empty-body]
    """Encoder classes this plugin brings, for attacks that compare pictures. Since 0.2."""


@hookspec
def mia_bench_executors() -> Iterable[type[Executor]]:  # type: ignore[empty-body]
    """Executor classes this plugin brings: what runs measure on. Since 0.2."""


@hookspec
def mia_bench_run_started(event: RunStarted) -> None:
    """A run has been planned and is about to measure. Since 0.1."""


@hookspec
def mia_bench_batch_measured(event: BatchMeasured) -> None:
    """A batch has been measured by all attacks and stored. Since 0.1."""


@hookspec
def mia_bench_run_finished(event: RunFinished) -> None:
    """All batches are stored; scores and metrics follow. Since 0.1."""
