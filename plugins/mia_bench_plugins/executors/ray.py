"""`ray`: the actors of a Ray cluster, each with the target on a device of its own."""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Sequence
from typing import Any

from mia_bench import hookimpl
from mia_bench.errors import UnavailableError, brief
from mia_bench.executor import Executor, ExecutorMeta, Job, Lost, Message, Task, check_sendable, failed

PATIENCE_S = 30.0  # after which a wait for the cluster's first worker is spoken of


class Actor:
    """A worker's process, somewhere in the cluster.

    What goes wrong is returned: Ray would wrap what is raised.
    """

    def open(self, job: Job) -> Message:
        """Plan, and load the target."""
        from mia_bench.engine.worker import Worker

        try:
            self.worker = Worker(job)
            return self.worker.ready
        except Exception as error:
            return failed(error)

    def measure(self, task: Task, ahead: Task | None) -> Message:
        """One batch."""
        try:
            return self.worker.measure(task, ahead)
        except Exception as error:
            return failed(error)


class Ray(Executor):
    """Actors of the cluster that RAY_ADDRESS names, or of the one on this machine.

    Each takes a GPU, or as many processors as it has threads. The run folder, the plugins and the images must lie on a
    disk that all machines share.
    """

    meta = ExecutorMeta(name="ray", summary="a Ray cluster: one actor per GPU, or --workers N")

    def __init__(self, workers: int | None = None) -> None:
        super().__init__(workers)
        self.actors: dict[int, Any] = {}
        self.asked: dict[Any, int] = {}  # by what Ray calls the answer to come
        self.connected = self.answered = self.warned = False

    def spread(self, job: Job) -> Sequence[Job]:
        options = job.options
        check_sendable(job, "--executor ray")
        self._connect()
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1] or [1]
        device = options.device or ""
        gpus = 0 if device.startswith("cpu") else int(sum(node.get("GPU", 0) for node in nodes))
        if not gpus and device and not device.startswith("cpu"):
            fix = "leave --device out to measure on processors, or start Ray's nodes where it finds their GPUs"
            raise UnavailableError(f"--device {device}", "the Ray cluster has no GPU", fix)
        count = self.workers or gpus or len(cpus)
        self.gpus = gpus > 0
        threads = options.threads or max(1, min(min(cpus), sum(cpus) // count))
        return [job.on("cuda" if gpus else "cpu", options.threads if gpus else threads)] * count

    def _connect(self) -> None:
        try:
            import ray
        except ImportError as error:
            fix = 'pip install "mia-bench[ray]"'
            raise UnavailableError("--executor ray", f"Ray cannot be imported: {brief(error)}", fix) from error
        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default, and no warning of it
        address = os.environ.get("RAY_ADDRESS", "auto")
        try:
            if found := re.fullmatch(r"([\w.-]+):(\d+)", address):  # Ray itself would wait for minutes
                socket.create_connection((found[1], int(found[2])), timeout=10).close()
            ray.init(address=address, log_to_driver=False, logging_level="warning")
        except Exception as error:  # of many kinds
            fix = "start one with `ray start --head`, or name one in RAY_ADDRESS"
            raise UnavailableError("--executor ray", f"there is no cluster: {brief(error)}", fix) from error
        self.connected = True

    def start(self, number: int, job: Job) -> None:
        import ray

        needs: dict[str, Any] = {"num_gpus": 1} if self.gpus else {"num_cpus": job.options.threads}
        self.actors[number] = ray.remote(Actor).options(max_restarts=0, **needs).remote()
        self._ask(number, self.actors[number].open.remote(job))

    def give(self, number: int, task: Task, ahead: Task | None) -> None:
        self._ask(number, self.actors[number].measure.remote(task, ahead))

    def _ask(self, number: int, answer: Any) -> None:
        self.asked[answer] = number

    def wait(self) -> Sequence[tuple[int, Message]]:
        import ray

        ready, _ = ray.wait(list(self.asked), timeout=PATIENCE_S)
        if not ready:
            if not self.answered and not self.warned:
                self.warned = True
                waiting = "no worker has opened the target yet: `ray status` shows what the cluster lacks"
                logging.getLogger("mia_bench").warning("%s", waiting)
            return []
        self.answered = True
        heard: list[tuple[int, Message]] = []
        for answer in ready:
            number = self.asked.pop(answer)
            try:
                heard.append((number, ray.get(answer)))
            except ray.exceptions.RayError as error:
                heard.append((number, Lost(f"its actor is gone: {brief(error)}")))
        return heard

    def stop(self) -> None:
        import ray

        for actor in self.actors.values():
            ray.kill(actor)
        self.actors.clear()
        self.asked.clear()
        if self.connected:
            ray.shutdown()
            self.connected = False


@hookimpl
def mia_bench_executors() -> list[type[Executor]]:
    return [Ray]
