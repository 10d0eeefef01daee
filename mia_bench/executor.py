"""The contract of an executor: where the batches of a run are measured, and by how many workers.

An executor starts workers, hands them batches and passes on what they report; which batch goes to whom, and what
becomes of the batch of a worker that is lost, the harness decides. Each worker holds the target and writes its shards
into the run folder by itself. A sample's numbers do not depend on its batch, so neither do they on any of this.
"""

from __future__ import annotations

import os
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from mia_bench.errors import MiaBenchError, UsageError

if TYPE_CHECKING:
    from mia_bench.engine.prepare import Prepared, RunOptions
    from mia_bench.trace import Event


class ExecutorMeta(BaseModel):
    """What is known about an executor before it is used.

    Attributes:
        name: Name on the command line, lower case.
        summary: One line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    summary: str


@dataclass(frozen=True)
class Job:
    """What a worker makes its measurements from; picklable.

    Attributes:
        options: Of the run, with the worker's own device and threads.
        plugins: Plugin files.
        plan: Digest of the plan; a worker that plans otherwise must not measure.
        encoders: Those that the attacks at work name.
        directory: What relative paths start from.
        environment: Variables of the harness and of the hub's cache.
        profile: Whether spans are to be recorded.
        prepared: What all this has led to already, for a worker in the same process; never sent to another.
    """

    options: RunOptions
    plugins: tuple[Path, ...]
    plan: str
    encoders: frozenset[str]
    directory: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    profile: bool = False
    prepared: Prepared | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "prepared": None}

    def on(self, device: str | None, threads: int | None) -> Job:
        """The same on a device, with so many network calls at once on a CPU."""
        return replace(self, options=replace(self.options, device=device, threads=threads))


@dataclass(frozen=True)
class Task:
    """One batch.

    Attributes:
        name: Of the shard that comes of it: measured twice, it replaces itself.
        attacks: Labels.
        samples: Ids.
    """

    name: str
    attacks: tuple[str, ...]
    samples: tuple[str, ...]


@dataclass(frozen=True)
class Ready:
    """A worker has opened the target; it would take so many samples at once."""

    batch: int


@dataclass(frozen=True)
class Report:
    """A batch is measured and stored.

    Attributes:
        task: Which.
        seconds: It took.
        samples: (sample id, label or None for all attacks) -> why it could not be measured.
        attacks: Label -> why the attack failed.
        spans: What another process recorded since its last report.
    """

    task: Task
    seconds: float
    samples: Mapping[tuple[str, str | None], str] = field(default_factory=dict)
    attacks: Mapping[str, str] = field(default_factory=dict)
    spans: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Lost:
    """A worker is gone, and why; what it had not reported is measured anew."""

    reason: str


@dataclass(frozen=True)
class Failed:
    """A worker cannot go on, and neither can the run."""

    error: Exception


Message = Ready | Report | Lost | Failed


def failed(error: Exception) -> Failed:
    """As what can be sent to another process or machine: whose class is known there."""
    sent = error if isinstance(error, MiaBenchError) else RuntimeError(f"{type(error).__name__}: {error}")
    sent.add_note("".join(traceback.format_exception(error)))  # its own does not travel
    return Failed(sent)


def check_sendable(job: Job, option: str) -> None:
    """Whether other processes can be given the job.

    Raises:
        UsageError: Its model is an object.
    """
    if not isinstance(job.options.target, str | None):
        why = "the model was given as an object, which other processes cannot be given"
        raise UsageError(option, why, "save it as a pipeline and name the folder, or use one worker")


class Executor(ABC):
    """Base class.

    Args:
        workers: How many; by what there is if None.
    """

    meta: ClassVar[ExecutorMeta]

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers

    @abstractmethod
    def spread(self, job: Job) -> Sequence[Job]:
        """The job of each worker: `job` on its device. One that is `job` itself, alone, is done in this process.

        Raises:
            MiaBenchError: It cannot be spread.
        """

    @abstractmethod
    def start(self, number: int, job: Job) -> None:
        """Start the worker of this number, or start it again. It says `Ready` when the target is open."""

    @abstractmethod
    def give(self, number: int, task: Task, ahead: Task | None) -> None:
        """Let a worker measure a batch; `ahead` is the one that it will probably be given next."""

    @abstractmethod
    def wait(self) -> Sequence[tuple[int, Message]]:
        """What workers, by number, have to say; waits until there is something."""

    @abstractmethod
    def stop(self) -> None:
        """End all workers at once, whatever they do; called in any case."""


INHERITED = ("MIA_BENCH_", "HF_", "HUGGINGFACE_", "TORCH_HOME", "XDG_CACHE_HOME")


def inherited() -> dict[str, str]:
    """This process's variables that a worker started elsewhere needs."""
    return {name: value for name, value in os.environ.items() if name.startswith(INHERITED)}
