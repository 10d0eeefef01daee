"""Images, and noise, made ready for the batch that comes next while the device works on this one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mia_bench.dataset import Sample
from mia_bench.errors import SampleError
from mia_bench.trace import span

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Loaded:
    """Samples whose images can be used, and those whose cannot.

    Attributes:
        samples: B samples that opened.
        images: Theirs, RGB at native size.
        pixels: At the target's size, float32 `(B, 3, H, W)` in [-1, 1].
        failed: Samples left out, and why.
    """

    samples: tuple[Sample, ...]
    images: tuple[Image, ...]
    pixels: NDArray[np.float32]
    failed: tuple[tuple[Sample, SampleError], ...] = ()

    def complete(self) -> Loaded:
        """Itself, for a caller who can do without none.

        Raises:
            SampleError: Some sample cannot be used.
        """
        for _, error in self.failed:
            raise error
        return self


def load(samples: Sequence[Sample], side: int, stopped: Event | None = None) -> Loaded:
    """Decode images and bring them to `side` pixels, here and now; those that cannot be decoded are left out."""
    from mia_bench.images import to_pixels

    found: list[tuple[Sample, Image]] = []
    pixels = np.empty((len(samples), 3, side, side), dtype=np.float32)
    failed: list[tuple[Sample, SampleError]] = []
    with span("images"):
        for sample in samples:
            if stopped and stopped.is_set():
                break
            try:
                image = sample.open()
            except SampleError as error:
                failed.append((sample, error))
                continue
            pixels[len(found)] = to_pixels(image, side)
            found.append((sample, image))
    return Loaded(tuple(s for s, _ in found), tuple(i for _, i in found), pixels[: len(found)], tuple(failed))


@dataclass
class _Started:
    """A batch that is being made ready."""

    samples: tuple[Sample, ...]
    future: Future[Loaded]
    stopped: Event = field(default_factory=Event)


class Loader:
    """Loads batches in a thread of its own, one batch ahead at most. Use as a context, which ends the thread.

    Args:
        side: Of the target's images, in pixels.
        foresee: What else can be made ready for samples by their ids; whatever it raises comes up where it is needed.
    """

    def __init__(self, side: int, foresee: Callable[[Sequence[str]], None] | None = None) -> None:
        self.side, self.foresee = side, foresee
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._next: _Started | None = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread."""
        self._drop()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def ahead(self, samples: Sequence[Sample]) -> None:
        """Begin with a batch that will probably be asked for next; what was begun before is given up."""
        self._drop()
        if samples:
            self._next = self._start(tuple(samples))

    def load(self, samples: Sequence[Sample]) -> Loaded:
        """A batch, ready if it was foreseen."""
        started, self._next = self._next, None
        if started is None or [*map(id, started.samples)] != [*map(id, samples)]:
            if started:
                started.stopped.set()
            # In that thread too: a dataset's files need not be safe to read from two.
            started = self._start(tuple(samples), foresee=False)
        with span("images", waits=True):
            return started.future.result()

    def _start(self, samples: tuple[Sample, ...], foresee: bool = True) -> _Started:
        started = _Started(samples, Future())
        self._thread.submit(self._make, started, foresee)
        return started

    def _make(self, started: _Started, foresee: bool) -> None:
        try:
            started.future.set_result(load(started.samples, self.side, started.stopped))
        except BaseException as error:
            started.future.set_exception(error)
            return
        if foresee and self.foresee and not started.stopped.is_set():
            self.foresee([sample.id for sample in started.samples])

    def _drop(self) -> None:
        if self._next:
            self._next.stopped.set()
            self._next = None
