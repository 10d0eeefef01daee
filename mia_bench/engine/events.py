"""What reporters are told while a run goes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunStarted:
    """Attributes: labels measured, samples to do and already stored, batches to do, where, with which captions, and by
    how many workers.
    """

    labels: tuple[str, ...]
    pending: int
    stored: int
    batches: int
    folder: str
    captions: str = "true"
    workers: int = 1


@dataclass(frozen=True)
class BatchMeasured:
    """Attributes: batches done, samples done and to do in all, seconds of this batch."""

    batch: int
    batches: int
    done: int
    pending: int
    seconds: float


@dataclass(frozen=True)
class RunFinished:
    """Attributes: samples measured now and the seconds it took."""

    done: int
    seconds: float
