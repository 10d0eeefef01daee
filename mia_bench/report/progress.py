"""Progress while a run measures: a bar on a terminal, timed lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mia_bench.hookspecs import hookimpl
from mia_bench.report.text import printable, seconds_text

if TYPE_CHECKING:
    from mia_bench.engine.events import BatchMeasured, RunFinished, RunStarted
    from mia_bench.plugins import Registry

LINE_EVERY_S = 10.0


@dataclass
class Reporter:
    """Base: remembers where the run writes."""

    folder: str = ""
    began: float = field(default_factory=time.monotonic)
    done: int = 0
    pending: int = 0

    @hookimpl
    def mia_bench_run_started(self, event: RunStarted) -> None:
        self.folder = self.folder or event.folder  # controls are below it
        self.pending, self.began, self.done = event.pending, time.monotonic(), 0
        self.start(event)

    @hookimpl
    def mia_bench_batch_measured(self, event: BatchMeasured) -> None:
        self.done = event.done
        self.step(event)

    @hookimpl
    def mia_bench_run_finished(self, event: RunFinished) -> None:
        self.stop()

    def start(self, event: RunStarted) -> None:
        """Called once, before the first batch."""

    def step(self, event: BatchMeasured) -> None:
        """Called after each batch."""

    def stop(self) -> None:
        """Called at the end, also after an error."""


@dataclass
class Lines(Reporter):
    """Plain timed lines, at most one every ten seconds."""

    last: float = 0.0

    def start(self, event: RunStarted) -> None:
        if not event.pending:
            self.say(f"nothing to measure{_with(event)}: all {event.stored} samples are stored")
            return
        stored = f", {event.stored} already stored" if event.stored else ""
        batches = "1 batch" if event.batches == 1 else f"{event.batches} batches"
        self.say(f"measuring {event.pending} samples in {batches}{_with(event)}{stored}: {', '.join(event.labels)}")

    def step(self, event: BatchMeasured) -> None:
        now = time.monotonic()
        if now - self.last >= LINE_EVERY_S or event.batch == event.batches:
            self.last = now
            left = (now - self.began) / event.done * (event.pending - event.done)
            self.say(f"{event.done}/{event.pending} samples, {seconds_text(left)} left")

    def say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # nobody can read this; the run goes on
            print(f"[{time.monotonic() - self.began:6.1f} s] {text}", file=sys.stderr, flush=True)


@dataclass
class Bar(Reporter):
    """A rich progress bar with the time left."""

    progress: Any = None

    def start(self, event: RunStarted) -> None:
        if not event.pending:
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("samples"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.progress.start()
        stored = f" ({event.stored} stored)" if event.stored else ""
        self.task = self.progress.add_task(f"measuring{_with(event)}{stored}", total=event.pending)

    def step(self, event: BatchMeasured) -> None:
        self.progress.update(self.task, completed=event.done)

    def stop(self) -> None:
        if self.progress is not None:
            self.progress.stop()


def _with(event: RunStarted) -> str:
    workers = f" on {event.workers} workers" if event.workers > 1 else ""
    return workers + ("" if event.captions == "true" else printable(f" with {event.captions} captions"))


@contextlib.contextmanager
def reporter(registry: Registry) -> Iterator[Reporter]:
    """Report a run's progress on standard error; after Ctrl-C say what is kept."""
    chosen: Reporter = Bar() if sys.stderr.isatty() else Lines()
    registry.manager.register(chosen, "progress")
    try:
        yield chosen
    except KeyboardInterrupt:
        kept = f"{chosen.done}/{chosen.pending} samples are stored now in {chosen.folder}; "
        again = "run the same command again to resume"
        raise KeyboardInterrupt(f"{kept if chosen.folder else ''}{again}") from None
    finally:
        chosen.stop()
        registry.manager.unregister(chosen)
