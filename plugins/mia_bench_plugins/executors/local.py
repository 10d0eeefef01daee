"""`local`: this machine, one process for each visible GPU, or `--workers N` of them on its processor."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from mia_bench import hookimpl
from mia_bench.errors import UsageError, brief
from mia_bench.executor import Executor, ExecutorMeta, Failed, Job, Lost, Message, Task

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from mia_bench.engine.worker import InProcess

GRACE_S = 5.0  # for a process that was told to end


class Local(Executor):
    """Processes of this machine; a single worker is this process itself."""

    meta = ExecutorMeta(name="local", summary="this machine: one process per visible GPU, or --workers N")

    def __init__(self, workers: int | None = None) -> None:
        super().__init__(workers)
        self.here: InProcess | None = None
        self.processes: dict[int, tuple[SpawnProcess, Connection]] = {}

    def spread(self, job: Job) -> Sequence[Job]:
        device = job.options.device
        gpus = _gpus() if device in (None, "cuda") else 0
        count = self.workers or max(1, gpus)
        if count == 1:
            from mia_bench.engine.worker import InProcess

            self.here = InProcess()
            return self.here.spread(job)
        if not isinstance(job.options.target, str | None):
            why = "the model was given as an object, which other processes cannot be given"
            raise UsageError(f"--workers {count}", why, "save it as a pipeline and name the folder, or use one worker")
        if gpus:
            return [job.on(f"cuda:{number % gpus}", job.options.threads) for number in range(count)]
        cores = len(os.sched_getaffinity(0))
        return [job.on(device, job.options.threads or max(1, cores // count))] * count

    def start(self, number: int, job: Job) -> None:
        if self.here:
            return self.here.start(number, job)
        if number in self.processes:
            self._end(*self.processes.pop(number))
        context = multiprocessing.get_context("spawn")  # a forked child would share CUDA's state and torch's threads
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, job), name=f"mia-bench worker {number + 1}", daemon=True)
        process.start()
        theirs.close()
        self.processes[number] = process, ours

    def give(self, number: int, task: Task, ahead: Task | None) -> None:
        if self.here:
            return self.here.give(number, task, ahead)
        with contextlib.suppress(OSError):  # it is gone, as `wait` will find
            self.processes[number][1].send((task, ahead))

    def wait(self) -> Sequence[tuple[int, Message]]:
        if self.here:
            return self.here.wait()
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
        if self.here:
            self.here.stop()
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
        error.add_note(traceback.format_exc())
        try:
            pipe.send(Failed(error))
        except Exception:  # one that cannot be sent
            pipe.send(Failed(RuntimeError(f"{type(error).__name__}: {brief(error, 400)}")))


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
