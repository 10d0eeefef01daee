"""What a worker does, in whatever process it runs: plan as the run did, open the target, measure batch after batch."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mia_bench.engine.blame import blaming
from mia_bench.engine.prepare import Prepared, RunOptions, open_device, prepare
from mia_bench.errors import UnavailableError, brief
from mia_bench.executor import Executor, ExecutorMeta, Job, Message, Ready, Report, Task
from mia_bench.plugins import Registry
from mia_bench.trace import listen, span

if TYPE_CHECKING:
    from mia_bench.target import Target

MAX_THREADS = 16  # by default: each thread holds the activations of one network call


class Worker:
    """Holds the opened target.

    Args:
        job: What to measure, from which options.

    Raises:
        UnavailableError: The plan, the run folder or the target is not what the run has.
        MiaBenchError: The target cannot be opened.
    """

    def __init__(self, job: Job) -> None:
        from mia_bench.engine.measure import Measurer
        from mia_bench.engine.provenance import environment

        # Spans of another process come to the run's own with each report.
        self.recorder = listen() if job.profile and not job.prepared else None
        prepared = job.prepared or _prepared(job)
        self.ready = Ready(open_target(prepared, job.options, job.encoders))
        made_by = environment(prepared.target.device) | ({"compiled": True} if job.options.compile else {})
        self.measurer = Measurer(prepared, made_by, job.options.fail_fast)

    def measure(self, task: Task, ahead: Task | None = None) -> Report:
        """One batch, stored."""
        report = self.measurer.measure(task, ahead)
        return replace(report, spans=tuple(self.recorder.take())) if self.recorder else report

    def close(self) -> None:
        """End what it started."""
        self.measurer.close()


class InProcess(Executor):
    """One worker: this process."""

    meta = ExecutorMeta(name="in-process", summary="this process alone")

    def __init__(self, workers: int | None = None) -> None:
        super().__init__(workers)
        self.worker: Worker | None = None
        self.given: tuple[Task, Task | None] | None = None

    def spread(self, job: Job) -> Sequence[Job]:
        return [job]

    def start(self, number: int, job: Job) -> None:
        self.worker = Worker(job)

    def give(self, number: int, task: Task, ahead: Task | None) -> None:
        self.given = task, ahead

    def wait(self) -> Sequence[tuple[int, Message]]:
        assert self.worker is not None, "started before"
        given, self.given = self.given, None
        return [(0, self.worker.measure(*given) if given else self.worker.ready)]

    def stop(self) -> None:
        if self.worker:
            self.worker.close()
        self.worker = None


def _prepared(job: Job) -> Prepared:
    """As the run prepared it, in another process and perhaps on another machine."""
    os.environ.update(job.environment)
    try:
        os.chdir(job.directory)
    except OSError as error:
        fix = "give all machines the same disk, or measure with `--shard` and join with `mia-bench merge`"
        raise UnavailableError(f"folder {job.directory}", f"a worker cannot go there: {brief(error)}", fix) from error
    prepared = prepare(Registry.load(job.plugins), job.options)
    if prepared.plan.digest != job.plan:
        why = "a worker plans another run: its plugins, dataset or target differ"
        raise UnavailableError(f"run folder {prepared.store.folder}", why, "give all workers the same files")
    if not prepared.store.shards.is_dir():
        why = "a worker does not see it"
        raise UnavailableError(f"run folder {prepared.store.folder}", why, "put it on a disk that all machines share")
    return prepared


@span("loading the target")
def open_target(prepared: Prepared, options: RunOptions, encoders: Collection[str]) -> int:
    """Load the target with these encoders; returns the samples per batch.

    Raises:
        MiaBenchError: It cannot be loaded.
    """
    target = prepared.target
    threads = options.threads or min(MAX_THREADS, len(os.sched_getaffinity(0)))
    wanted: dict[str, Any] = {
        "device": open_device(options.device),
        "dtype": options.dtype,
        "rows": options.rows,
        "threads": threads,
        "share": options.share,
        "latent": options.latent,
        "compile": options.compile,
    }
    named = {spec: encoder for spec, encoder in prepared.encoders.items() if spec in encoders}
    # Another seed of the same run, or a control of it, finds it as it was.
    if target.opened_for != wanted or not named.keys() <= target.encoders.keys():
        target.encoders = named
        with blaming("target", prepared.plan.target, type(target)):
            target.open(**wanted)
        target.opened_for = wanted
    return options.batch or default_batch(target, threads)


def default_batch(target: Target, threads: int) -> int:
    """Samples per batch: a call for every thread on a CPU, one call on a GPU."""
    return target.denoiser.rows.rows * (threads if target.device.startswith("cpu") else 1)
