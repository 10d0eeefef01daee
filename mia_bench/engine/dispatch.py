"""Who measures which batch: batches go to whoever is free, and that of a lost worker to another."""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from math import ceil
from typing import Self

from mia_bench.engine.events import BatchMeasured, RunFinished, RunStarted
from mia_bench.engine.measure import Outcome, Work
from mia_bench.engine.worker import InProcess
from mia_bench.errors import MiaBenchError, NetworkError, UnavailableError
from mia_bench.executor import Executor, Failed, Job, Lost, Message, Ready, Report, Task
from mia_bench.plugins import Registry
from mia_bench.trace import merge, span

MAX_LOSSES = 3  # workers that may be lost on one batch, or one after the other before they measure anything

logger = logging.getLogger("mia_bench")


class Dispatcher:
    """The workers of one run.

    Args:
        executor: What starts them.
        job: What they measure from.
        registry: Told about progress.
    """

    def __init__(self, executor: Executor, job: Job, registry: Registry) -> None:
        self.jobs, self.registry = executor.spread(job), registry
        alone = len(self.jobs) == 1 and self.jobs[0] is job
        self.executor = InProcess() if alone else executor
        self.idle: deque[int] = deque()
        self.at_work: dict[int, Task] = {}
        self.next: dict[int, Task] = {}  # what a worker has been told to expect
        self.waiting: deque[Task] = deque()
        self.losses = Counter[str | int]()  # by batch; by worker, since it last reported
        self.gone: dict[int, MiaBenchError] = {}  # workers that were given up
        self.opened = set[int]()  # workers that hold the target
        self.batch = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.stop()

    def open(self) -> int:
        """Start all workers, and wait for the first of them; returns the samples that it would take at once.

        Raises:
            MiaBenchError: The target cannot be opened.
        """
        for number, job in enumerate(self.jobs):
            self.executor.start(number, job)
        while not self.batch:
            self._listen()
        return self.batch

    def run(self, tasks: Sequence[Task], stored: int, folder: str, captions: str = "true") -> Outcome:
        """Have every batch measured.

        Args:
            tasks: The batches.
            stored: Samples that are measured already; this and the rest is for those who report.
            folder: The run's.
            captions: What attacks take for captions.

        Raises:
            MiaBenchError: A worker cannot go on, or workers are lost time after time.
        """
        outcome, done, began = Outcome(), 0, time.perf_counter()
        reports: dict[str, Report] = {}
        total = sum(len(task.samples) for task in tasks)
        labels = tuple(dict.fromkeys(label for task in tasks for label in task.attacks))
        self.registry.run_started(RunStarted(labels, total, stored, len(tasks), folder, captions, len(self.jobs)))
        self.waiting, finished = deque(tasks), 0
        while finished < len(tasks):
            while self.idle and (task := self._take(self.idle[0])):
                if going := tuple(label for label in task.attacks if label not in outcome.attacks):
                    self._give(self.idle.popleft(), Task(task.name, going, task.samples))
                else:  # all its attacks have failed elsewhere
                    finished, done = finished + 1, done + len(task.samples)
                    self._tell(finished, tasks, done, total, 0.0)
            if finished == len(tasks):
                break
            for report in self._listen():
                reports[report.task.name] = report
                outcome.attacks.update(report.attacks)
                finished, done = finished + 1, done + len(report.task.samples)
                self._tell(finished, tasks, done, total, report.seconds)
        self.registry.run_finished(RunFinished(done, time.perf_counter() - began))
        for task in reversed(tasks):  # of several reasons the first batch's, whoever reported first
            if task.name in reports:
                outcome.samples.update(reports[task.name].samples)
                outcome.attacks.update(reports[task.name].attacks)
        return outcome

    def _tell(self, finished: int, tasks: Sequence[Task], done: int, total: int, seconds: float) -> None:
        self.registry.batch_measured(BatchMeasured(finished, len(tasks), done, total, seconds))

    def _take(self, number: int) -> Task | None:
        """The batch that a worker expects, else the next one, else one that another expects."""
        if number in self.next:
            return self.next.pop(number)
        if self.waiting:
            return self.waiting.popleft()
        return self.next.popitem()[1] if self.next else None

    def _give(self, number: int, task: Task) -> None:
        if self.waiting:
            self.next[number] = self.waiting.popleft()
        self.at_work[number] = task
        self.executor.give(number, task, self.next.get(number))

    def _listen(self) -> list[Report]:
        """Wait until workers have something to say; what they have measured."""
        with span("workers", waits=True) if len(self.jobs) > 1 else nullcontext():
            said = self.executor.wait()
        return [report for number, message in said if (report := self._heard(number, message))]

    def _heard(self, number: int, message: Message) -> Report | None:
        """Book what a worker says; the report if it has measured something."""
        if number in self.gone:  # the end of its process
            return None
        match message:
            case Failed(error):
                # A device at fault, or one that the target does not fit, is no fault of the others.
                if number not in self.opened and isinstance(error, MiaBenchError):
                    self._give_up(number, error)
                elif isinstance(error, NetworkError) and self.opened - {number}:
                    self._lost(number, error)
                else:
                    raise error
            case Ready(batch):
                self.opened.add(number)
                self.batch = self.batch or batch
                self.idle.append(number)
            case Report():
                merge(message.spans)
                self.losses[number] = 0
                del self.at_work[number]
                self.idle.append(number)
                return message
            case Lost(reason):
                self._lost(number, UnavailableError(reason))
        return None

    def _lost(self, number: int, error: MiaBenchError) -> None:
        """Put back what a worker was to measure, and start it again if that is not what ends it."""
        task, expected = self.at_work.pop(number, None), self.next.pop(number, None)
        self.waiting.extendleft(t for t in (expected, task) if t)
        if number in self.idle:
            self.idle.remove(number)
        self.opened.discard(number)
        self.losses[number] += 1
        if task:
            self.losses[task.name] += 1
            if self.losses[task.name] == MAX_LOSSES:
                what = f"batch of samples {', '.join(task.samples[:3])}{', ...' if len(task.samples) > 3 else ''}"
                why = f"{MAX_LOSSES} workers were lost on it: {error}"
                raise UnavailableError(what, why, error.fix or "fewer --rows or --batch need less memory")
        if self.losses[number] < MAX_LOSSES:
            logger.warning("worker %d was lost: %s; another takes its place", number + 1, error)
            self.executor.start(number, self.jobs[number])
            return
        why = f"lost {MAX_LOSSES} times: {error}"
        self._give_up(number, UnavailableError(f"worker {number + 1}", why, error.fix or "try --workers 1"))

    def _give_up(self, number: int, error: MiaBenchError) -> None:
        """Go on without a worker; not without any."""
        self.gone[number] = error
        if len(self.gone) == len(self.jobs):
            raise next(iter(self.gone.values()))
        logger.warning("%s; the other workers go on without worker %d", error, number + 1)


def tasks_of_work(work: Iterable[Work], batch: int, workers: int = 1) -> list[Task]:
    """Batches of at most so many samples; as many of each group as keep all workers busy to the end."""
    tasks = []
    for group in work:
        ids, labels = [s.id for s in group.samples], tuple(a.label for a in group.attacks)
        rounds = ceil(len(ids) / (batch * workers))
        size = ceil(len(ids) / (rounds * workers)) if workers > 1 else batch
        tasks += [Task(uuid.uuid4().hex[:12], labels, tuple(ids[i : i + size])) for i in range(0, len(ids), size)]
    return tasks
