"""Run a network in calls of one fixed row count.

The same row gives the same bits only in calls of the same size, so the last call is padded. On a CPU each call runs on
one thread and as many calls run at once as there are threads: a network spread over several threads splits its work
by position in the batch, which changes the rounding, and waits at every layer, which costs about a third of the time.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TypeVar

import torch

from mia_bench.errors import NetworkError
from mia_bench.trace import recording, span

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # glibc's malloc.h

T = TypeVar("T")
Network = Callable[..., torch.Tensor]


class RowRunner:
    """Calls a network with exactly `rows` rows at a time and counts.

    Args:
        rows: Rows per call; halved when memory runs out.
        pool: Runs several calls at once, or None for one after the other.
        name: Of the network, for messages.
        kind: Of the network, for a profile.
        settled: Told the rows that worked after memory ran out with more.

    Attributes:
        done: Rows executed, padding not counted.
        padding: Rows of padding.
        calls: Calls of the network.
        seconds: Wall seconds inside (host side; on a GPU the time to queue the work), of all threads that call.
    """

    def __init__(
        self,
        rows: int,
        pool: ThreadPoolExecutor | None = None,
        name: str = "a network of the target",
        kind: str = "network",
        settled: Callable[[int], None] | None = None,
    ) -> None:
        self.rows, self.pool, self.name, self.kind, self.settled = rows, pool, name, kind, settled
        self.done = self.padding = self.calls = 0
        self.seconds = 0.0
        self.lock = Lock()

    def __call__(self, network: Network, *inputs: torch.Tensor, pad: bool = True) -> torch.Tensor:
        """Apply `network` row by row.

        Args:
            network: Maps tensors `(rows, ...)` to a tensor `(rows, ...)`, each row on its own.
            inputs: Tensors `(N, ...)` with the same N.
            pad: Fill the last call up to the row count.

        Returns:
            `(N, ...)`.

        Raises:
            NetworkError: The network failed, or memory ran out even for one row.
        """
        with self.timed():
            return self._called(network, inputs, pad)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Book the seconds within on this network."""
        began = time.perf_counter()
        try:
            with span(self.kind):
                yield
        finally:
            with self.lock:
                self.seconds += time.perf_counter() - began

    def _called(self, network: Network, inputs: tuple[torch.Tensor, ...], pad: bool) -> torch.Tensor:
        count, rows = inputs[0].shape[0], self.rows
        while True:
            try:
                outputs = self._map(network, inputs, count, pad)
                break
            except NetworkError:  # it says itself what is wrong
                raise
            except Exception as error:
                if self.rows == 1 or not out_of_memory(error):
                    why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                    fix = "check the checkpoint, --device and --dtype; --rows 1 needs the least memory"
                    raise NetworkError(f"{self.name} failed", why, fix) from error
            # Outside the handler: the traceback, which holds the failed call's tensors, is gone by now.
            self.rows //= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        with self.lock:
            self.done += count
            self.calls += len(outputs)
            self.padding += sum(map(len, outputs)) - count
        if self.rows < rows and self.settled:
            self.settled(self.rows)
        return torch.cat(outputs)[:count]

    def each(self, function: Callable[[int], T], count: int) -> list[T]:
        """`function` of 0 .. count - 1, as many at once as calls run at once: for work that cannot share a call.

        Modes of torch that are per thread (gradients, inference) are `function`'s to set.
        """
        with span(self.kind, waits=self.pool is not None):
            return list((self.pool.map if self.pool else map)(function, range(count)))

    def _map(self, network: Network, inputs: tuple[torch.Tensor, ...], count: int, pad: bool) -> list[torch.Tensor]:
        inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

        def call(start: int) -> torch.Tensor:
            with span(self.kind), torch.inference_mode(inference), torch.set_grad_enabled(grad):  # both are per thread
                output = network(*(_chunk(x, start, self.rows, pad) for x in inputs))
                if recording():
                    _wait_for(output)
                return output

        starts = range(0, count, self.rows)
        if self.pool is None or len(starts) == 1 or grad:
            return [call(s) for s in starts]
        with span(self.kind, waits=True):
            return list(self.pool.map(call, starts))


def _wait_for(output: torch.Tensor) -> None:
    """Wait until the device has made it: a GPU's calls return when they are queued."""
    if output.is_cuda:
        torch.cuda.synchronize(output.device)


def _chunk(x: torch.Tensor, start: int, rows: int, pad: bool) -> torch.Tensor:
    # Contiguous, because padding changes the memory layout of channels-last inputs and a layout has its own rounding.
    part = x[start : start + rows].contiguous()
    missing = rows - part.shape[0] if pad else 0
    return torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def worker_pool(threads: int) -> ThreadPoolExecutor | None:
    """A pool that runs `threads` network calls at once, each on one thread."""
    keep_freed_memory()
    torch.set_num_threads(1)
    # In each of them too: OpenMP keeps the number by thread, and a convolution's gradient rounds by it.
    if threads == 1:
        return None
    return ThreadPoolExecutor(threads, "network", initializer=torch.set_num_threads, initargs=(1,))


def keep_freed_memory() -> None:
    """Let this process use the memory of one call's activations for the next.

    Otherwise glibc returns freed blocks of some MB, and the ends of a thread's own heap, to the system, and each call
    pays for the same pages again, one fault a page. With another C library nothing changes.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_ARENA_MAX, 1)  # a heap of each thread's own is returned whole as soon as it is empty
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        if not mallopt(M_MMAP_THRESHOLD, 2**30):
            mallopt(M_MMAP_THRESHOLD, 2**25)  # the most that older ones take
