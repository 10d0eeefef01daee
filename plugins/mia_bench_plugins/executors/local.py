"""`local`: this machine, one process for each visible GPU, or `--workers N` of them on its processor."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from mia_bench import hookimpl
from mia_bench.executor import Executor, ExecutorMeta, Job, Lost, Message, Task, check_sendable, failed

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

GRACE_S = 5.0  # for a process that was told to end


class Local(Executor):
    """Processes of this machine; a single worker is this process itself."""

    meta = ExecutorMeta(name="local", summary="this machine: one process per visible GPU, or --workers N")

    def __init__(self, workers: int | None = None) -> None:
        super().__init__(workers)
        self.processes: dict[int, tuple[SpawnProcess, Connection]] = {}

    def spread(self, job: Job) -> Sequence[Job]:
        device = job.options.device
        gpus = _gpus() if device in (None, "cuda") else 0
        count = self.workers or max(1, gpus)
        if count == 1:
            return [job]
        check_sendable(job, f"--workers {count}")
        if gpus:
            return [job.on(f"cuda:{number % gpus}", job.options.threads) for number in range(count)]
        cores = len(os.sched_getaffinity(0))
        return [job.on(device, job.options.threads or max(1, cores // count))] * count

    def start(self, number: int, job: Job) -> None:
        if number in self.processes:
            self._end(*self.processes.pop(number))
        context = multiprocessing.get_context("spawn")  # a forked child would share CUDA's state and torch's threads
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, job), name=f"mia-bench worker {number + 1}", daemon=True)
        resource_tracker.ensure_running()  # lest it be started next, and unblock the signal
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # it inherits this: Ctrl-C finds it still starting
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        theirs.close()
        self.processes[number] = process, ours

    def give(self, number: int, task: Task, ahead: Task | None) -> None:
        with contextlib.suppress(OSError):  # it is gone, as `wait` will find
            self.processes[number][1].send((task, ahead))

    def wait(self) -> Sequence[tuple[int, Message]]:
        by_pipe = {pipe: (number, process) for number, (process, pipe) in self.processes.items()}
        heard: list[tuple[int, Message]] = []
        for pipe in wait(list(by_pipe)):
            assert isinstance(pipe, Connection)
            number, process = by_pipe[pipe]
            try:
                heard.append((number, pipe.recv()))
            except (EOFError, OSError):
                process.join(GRACE_S)
                del self.processes[number]
                heard.append((number, Lost(_ended(process.exitcode))))
        return heard

    def stop(self) -> None:
        for process, _ in self.processes.values():
            process.terminate()
        for process, pipe in self.processes.values():
            self._end(process, pipe)
        self.processes.clear()

    def _end(self, process: SpawnProcess, pipe: Connection) -> None:
        process.terminate()
        process.join(GRACE_S)
        if process.is_alive():
            process.kill()
            process.join()
        pipe.close()


def serve(pipe: Connection, job: Job) -> None:
    """A worker's process: says when it is ready, then reports each batch that it is given."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; who started this process ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from mia_bench.engine.worker import Worker

    try:
        worker = Worker(job)
        pipe.send(worker.ready)
        while True:
            pipe.send(worker.measure(*pipe.recv()))
    except EOFError:
        return
    except Exception as error:
        pipe.send(failed(error))


def _end_with_parent() -> None:
    """A killed parent cannot say so."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _ended(code: int | None) -> str:
    if code is None:
        return "it does not answer"
    if code < 0:
        name = signal.Signals(-code).name
        return f"its process was ended by {name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
    return f"its process ended with status {code}"


@hookimpl
def mia_bench_executors() -> list[type[Executor]]:
    return [Local]
