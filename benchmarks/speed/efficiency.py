"""How much of a run is network time, on the CPU: `python benchmarks/speed/efficiency.py [--pairs 7]`.

Two figures for the five attack families together on the embedded benchmark, without start-up, controls and metrics:

* outside: share of the run's seconds in which no U-Net, VAE or text encoder was running on any core (each network
  call is timed in its own thread). Beside it, idle: share of the cores' seconds outside these networks, so that a core
  that waits for the other counts too.
* efficiency: seconds that the bare networks need for the executed rows (padding not counted) at the best batch found
  for each, divided by the run's seconds. Bare and run alternate in pairs, because single timings vary; the figure is
  the median of the pairs' ratios with the interval that the sign test gives.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch

from mia_bench.engine.measure import Measurer, pending
from mia_bench.engine.prepare import Prepared, RunOptions, prepare
from mia_bench.engine.provenance import environment
from mia_bench.engine.run import default_batch
from mia_bench.plugins import Registry
from mia_bench.store import Store

NETWORKS = {"denoiser": "predict", "vae": "posterior", "text": "text_states"}


@contextmanager
def timed(target: Any) -> Iterator[list[tuple[float, float]]]:
    """Start and end of every network call, in any thread."""
    calls: list[tuple[float, float]] = []

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*inputs: Any, **states: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*inputs, **states)
            finally:
                calls.append((began, time.perf_counter()))

        return timing

    originals = {method: getattr(target, method) for method in NETWORKS.values()}
    predict = target.denoiser.predict
    for method in NETWORKS.values():
        setattr(target, method, wrap(originals[method]))
    target.denoiser.predict = target.predict
    try:
        yield calls
    finally:
        for method in originals:
            delattr(target, method)
        target.denoiser.predict = predict


def one_run(registry: Registry, prepared: Prepared, batch: int) -> dict[str, Any]:
    """Measure everything into a new folder; controls are taken off the time."""
    target = prepared.target
    target._texts.clear()
    with tempfile.TemporaryDirectory() as folder, timed(target) as calls:
        store = Store(Path(folder))
        with store.locked():
            began = time.perf_counter()
            work = pending(prepared.plan, prepared.samples, store)
            Measurer(prepared.plan, prepared.attacks, target, prepared.noise, store, registry, {}).run(work, batch)
            store.compact()
            seconds = time.perf_counter() - began
        shards = store.provenance().values()
    rows = {n: sum(s["networks"][n]["rows"] for s in shards) for n in NETWORKS}
    padding = {n: sum(s["networks"][n]["padding"] for s in shards) for n in NETWORKS}
    controls = sum(s["seconds"]["controls"] for s in shards)
    busy = sum(end - began for began, end in calls)
    return {"seconds": seconds - controls, "rows": rows, "padding": padding, "busy": busy, "covered": covered(calls)}


def covered(calls: list[tuple[float, float]]) -> float:
    """Seconds in which at least one call was running."""
    total, until = 0.0, 0.0
    for began, end in sorted(calls):
        total += max(0.0, end - max(began, until))
        until = max(until, end)
    return total


class Bare:
    """One network alone, at the fastest way of calling it."""

    def __init__(self, call: Callable[..., Any], one_row: tuple[torch.Tensor, ...], threads: int) -> None:
        self.call, self.one_row, self.threads = call, one_row, threads
        self.best: tuple[int, bool] = (32, True)

    def seconds(self, rows: int, batch: int, pooled: bool) -> float:
        """Wall seconds for `rows` rows in calls of `batch`, pooled or with the threads inside each call."""
        inputs = tuple(x.expand(batch, *x.shape[1:]).clone() for x in self.one_row)
        calls = max(1, round(rows / batch))
        torch.set_num_threads(1 if pooled else self.threads)

        def call(_: int) -> None:
            with torch.inference_mode():
                self.call(*inputs)

        with ThreadPoolExecutor(self.threads if pooled else 1) as pool:
            list(pool.map(call, range(self.threads)))  # warm up
            began = time.perf_counter()
            list(pool.map(call, range(calls)))
            seconds = time.perf_counter() - began
        torch.set_num_threads(1)
        return seconds * rows / (calls * batch)

    def find_best(self, rows: int) -> None:
        """The fastest batch and threading, each tried three times over a part of the work."""
        part = max(256, rows // 20)
        ways = [(batch, pooled) for batch in (8, 16, 32, 64, 128) for pooled in (True, False)]
        self.best = min(ways, key=lambda way: min(self.seconds(part, *way) for _ in range(3)))


@click.command()
@click.option("--pairs", default=7, show_default=True)
@click.option("--limit", type=int, help="Samples of each class.  [default: all]")
@click.option("--threads", default=2, show_default=True)
@click.option("--batch", type=int, help="Samples per batch.  [default: as the harness chooses]")
@click.option("--out", type=click.Path(path_type=Path), help="Write the record here as JSON.")
def main(pairs: int, limit: int | None, threads: int, batch: int | None, out: Path | None) -> None:
    registry = Registry.load()
    prepared = prepare(registry, RunOptions(limit=limit))
    target = prepared.target
    target.open(threads=threads)
    batch = batch or default_batch(target, threads)
    first = one_run(registry, prepared, batch)  # warms everything up
    states = target.condition([""]).states["encoder_hidden_states"]
    t = torch.zeros(1, dtype=torch.int64)
    bare = {
        "denoiser": Bare(
            lambda x, t, s: target.predict(x, t, encoder_hidden_states=s),
            (torch.randn(1, *target.sample_shape), t, states),
            threads,
        ),
        "vae": Bare(target.posterior, (torch.rand(1, 3, target.image_size, target.image_size) * 2 - 1,), threads),
        "text": Bare(target.text_states, (target.tokens(["a red apple"]),), threads),
    }
    for name, network in bare.items():
        network.find_best(first["rows"][name])
        size, pooled = network.best
        print(f"{name}: best at {size} rows, {'one thread a call' if pooled else 'all threads in each call'}")
    ratios, outside, idle, times = [], [], [], []
    for pair in range(pairs):
        alone = sum(network.seconds(first["rows"][name], *network.best) for name, network in bare.items())
        run = one_run(registry, prepared, batch)
        ratios.append(alone / run["seconds"])
        outside.append(1 - run["covered"] / run["seconds"])
        idle.append(1 - run["busy"] / threads / run["seconds"])
        times.append((alone, run["seconds"]))
        print(f"pair {pair + 1}: bare {alone:.2f} s, run {run['seconds']:.2f} s, efficiency {ratios[-1]:.3f}, ", end="")
        print(f"outside {outside[-1]:.1%}, idle {idle[-1]:.1%}")
    low, high = sign_interval(ratios)
    print(f"rows {first['rows']}, padding {first['padding']}")
    print(
        f"efficiency {statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}]; outside {statistics.median(outside):.1%}"
    )
    if out:
        record = {
            "benchmark": "speed/efficiency",
            "rows": first["rows"],
            "padding": first["padding"],
            "best": {name: {"batch": n.best[0], "one_thread_a_call": n.best[1]} for name, n in bare.items()},
            "pairs_s": times,
            "efficiency": {"median": statistics.median(ratios), "low": low, "high": high, "all": ratios},
            "outside": {"median": statistics.median(outside), "all": outside},
            "idle": {"median": statistics.median(idle), "all": idle},
            "environment": {**environment("cpu"), "threads": threads, "batch": batch},
        }
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def sign_interval(values: list[float], level: float = 0.95) -> tuple[float, float]:
    """Order-statistic interval of the median (binomial); the extremes where there are too few values."""
    from scipy.stats import binom

    ordered, n = sorted(values), len(values)
    k = int(binom.ppf((1 - level) / 2, n, 0.5))
    return ordered[max(0, k - 1)], ordered[min(n - 1, n - k)]


if __name__ == "__main__":
    main()
