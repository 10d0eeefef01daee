"""Networks alone: the least seconds that a machine needs for some work."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from once import Work

from mia_bench.target import Target

BATCHES = (1, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Way:
    """How a network is called: rows per call; several one-thread calls at once, or all threads in each call."""

    batch: int
    pooled: bool

    def __str__(self) -> str:
        return f"{self.batch} rows, {'one thread a call' if self.pooled else 'all threads in each call'}"


class Bare:
    """One network alone.

    Args:
        target: Opened, with its encoders.
        work: What is asked of it.
        threads: Cores to use.
    """

    def __init__(self, target: Target, work: Work, threads: int) -> None:
        owner: Any = target if work.owner == "target" else target.encoders[work.owner]
        self.target, self.work, self.threads = target, work, threads
        self.network: Callable[..., Any] = getattr(owner, work.method)
        self.way = Way(work.batch or 32, True)

    @property
    def name(self) -> str:
        gradient = f", gradient by {self.work.gradient}" if self.work.gradient else ""
        return f"{self.work.network}.{self.work.method}{gradient}"

    def _call(self, batch: int) -> Callable[[int], None]:
        """One call of `batch` rows; for gradients with one backward pass."""
        inputs = tuple(_rows(x, batch) for x in self.work.row[0])
        states = {name: _rows(x, batch) for name, x in self.work.row[1].items()}
        if not self.work.gradient:

            def call(_: int) -> None:
                with torch.inference_mode():
                    self.network(*inputs, **states)

            return call

        def graded(_: int) -> None:
            with torch.enable_grad():
                x = inputs[0].clone().requires_grad_(self.work.gradient == "inputs")
                own = {n: s.clone().requires_grad_(self.work.gradient == "inputs") for n, s in states.items()}
                wrt = [*own.values()] or [x]
                if self.work.gradient == "weights":
                    wrt = [w for w in self.target.network().parameters() if w.requires_grad]
                loss = self.network(x, *inputs[1:], **own).square().sum()
                torch.autograd.grad(loss, wrt, allow_unused=True)

        return graded

    def seconds(self, way: Way, rows: float) -> tuple[float, float]:
        """Wall and processor seconds for `rows` rows, at the pace of full calls on all threads."""
        at_once = self.threads if way.pooled else 1
        calls = at_once * max(1, round(rows / (way.batch * at_once)))
        call = self._call(way.batch)
        weights = list(self.target.network().parameters()) if self.work.gradient == "weights" else []
        frozen = [w for w in weights if not w.requires_grad]
        for weight in frozen:
            weight.requires_grad_(True)
        torch.set_num_threads(1 if way.pooled else self.threads)
        try:
            with ThreadPoolExecutor(
                at_once,
                initializer=torch.set_num_threads,
                initargs=(1 if way.pooled else self.threads,),
            ) as pool:
                list(pool.map(call, range(self.threads)))  # warm up
                began = time.perf_counter(), time.process_time()
                list(pool.map(call, range(calls)))
                spent = time.perf_counter() - began[0], time.process_time() - began[1]
        finally:
            torch.set_num_threads(1)
            for weight in frozen:
                weight.requires_grad_(False)
        share = rows / (calls * way.batch)
        return spent[0] * share, spent[1] * share

    def find(self, seconds: float = 0.2) -> Way:
        """The fastest way, each tried for about so long, three times, in turn; remembered."""
        batches = (self.work.batch,) if self.work.batch else BATCHES
        ways = [Way(batch, pooled) for batch in batches for pooled in (True, False)]
        one = self.seconds(Way(batches[-1] if self.work.batch else 8, True), batches[-1])[0] / batches[-1]
        part = {way: max(way.batch * self.threads, seconds / one) for way in ways}
        best = dict.fromkeys(ways, float("inf"))
        for attempt in range(3):
            for way in ways:
                if not attempt or best[way] <= 1.2 * min(best.values()):  # what is far off is not tried again
                    best[way] = min(best[way], self.seconds(way, part[way])[0] / part[way])
        self.way = min(ways, key=best.__getitem__)
        return self.way


def _rows(value: Any, batch: int) -> Any:
    if isinstance(value, torch.Tensor):
        return value.expand(batch, *value.shape[1:]).clone()
    return list(value) * batch


def alone(networks: Sequence[Bare], share: float = 1.0) -> tuple[float, float]:
    """Wall and processor seconds for so much of all their work, one network after the other."""
    each = [network.seconds(network.way, share * network.work.rows) for network in networks]
    return sum(wall for wall, _ in each), sum(processor for _, processor in each)
