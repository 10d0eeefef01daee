"""One run as `mia-bench run` does it, up to the last batch: what it took, and what it asked of each network."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mia_bench import hookimpl
from mia_bench.engine.measure import lacking
from mia_bench.engine.prepare import Prepared, RunOptions
from mia_bench.engine.run import measure
from mia_bench.plugins import Registry
from mia_bench.store import Store

TARGET = {"denoiser": "predict", "vae": "posterior", "decoder": "picture", "text": "text_states"}
PEAK = Path("/proc/self/clear_refs")
ENCODER = ("embedded", "between", "attended", "worded", "captioned")


class Watch:
    """Listens to a run: seconds from its first batch to its last."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self.before, self.images = before, 0
        self.began = self.seconds = self.processor = self.peak_mb = 0.0

    @hookimpl
    def mia_bench_run_started(self, event: Any) -> None:
        self.before()
        self.images = event.pending
        with suppress(OSError):
            PEAK.write_text("5", encoding="utf-8")  # counts from here
        self.began, self.processor = time.perf_counter(), -time.process_time()

    @hookimpl
    def mia_bench_run_finished(self, event: Any) -> None:
        self.seconds = time.perf_counter() - self.began
        self.processor += time.process_time()
        self.peak_mb = peak_mb()


@dataclass(frozen=True)
class Once:
    """What one run took.

    Attributes:
        seconds: From the first batch to the last stored, without start-up and scoring.
        processor: Processor seconds within.
        images: Images measured.
        asked: Queries that the attacks asked.
        rows: Rows that each network ran, without padding.
        padding: Rows of padding.
        backward: Backward passes.
        spent: Wall seconds by stage.
        peak_mb: The most memory that the process held within; of the benchmark's own it is what a run needs at most.
    """

    seconds: float
    processor: float
    images: int
    asked: int
    rows: dict[str, int]
    padding: dict[str, int]
    backward: int
    spent: dict[str, float]
    peak_mb: float


def peak_mb() -> float:
    """The most memory that this process has held resident since it was last asked to count; Linux only."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024 / 1e6


def only(prepared: Prepared, labels: Collection[str] | None = None) -> Prepared:
    """The same with some attacks only, or all, but no control: they ask nothing of the target."""
    kept = [a for a in prepared.plan.attacks if not a.control and not a.requires and (not labels or a.label in labels)]
    used = {spec for a in kept for spec in a.encoders}
    return replace(
        prepared,
        plan=prepared.plan.model_copy(update={"attacks": tuple(kept)}),
        encoders={spec: encoder for spec, encoder in prepared.encoders.items() if spec in used},
    )


def run_once(
    registry: Registry,
    prepared: Prepared,
    options: RunOptions,
    before: Callable[[], object] = lambda: None,
    reopen: bool = True,
) -> Once:
    """Measure everything of a plan into a new folder.

    Args:
        registry: All plugins.
        prepared: The plan and its target.
        options: As they were prepared from.
        before: Called between opening the target and the first batch.
        reopen: Whether the target is loaded anew, as a command does; else only what it remembers is dropped.

    Raises:
        RuntimeError: Something planned was not measured.
    """
    watch = Watch(before)
    if reopen:
        prepared.target.opened_for = None
    elif prepared.target.opened_for:
        prepared.target._texts.clear()
    registry.manager.register(watch)
    try:
        with tempfile.TemporaryDirectory() as folder:
            fresh = replace(prepared, store=Store(Path(folder)))
            with fresh.store.locked():
                measure(registry, fresh, options)
            left = sum(map(len, lacking(fresh.plan, fresh.store).values()))
            shards = list(fresh.store.provenance().values())
    finally:
        registry.manager.unregister(watch)
    if left or not shards:
        raise RuntimeError(f"{left} samples were not measured: " + ", ".join(a.label for a in prepared.plan.attacks))
    rows, padding, spent, counts = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for shard in shards:
        for name, network in shard["networks"].items():
            rows[name] += network["rows"]
            padding[name] += network["padding"]
        spent.update(shard["seconds"])
        counts.update({kind: sum(shard[kind].values()) for kind in ("asked", "backward")})
    return Once(
        seconds=watch.seconds,
        processor=watch.processor,
        images=watch.images,
        asked=counts["asked"],
        rows=dict(rows),
        padding=dict(padding),
        backward=counts["backward"],
        spent=dict(spent),
        peak_mb=watch.peak_mb,
    )


@dataclass
class Work:
    """What one network had to do.

    Attributes:
        owner: `target`, or the encoder as an attack named it.
        network: As the harness counts it.
        method: What was called.
        gradient: `""`, `"inputs"` or `"weights"`.
        row: One row of its inputs.
        batch: Rows per call where they are part of the work: the gradients of one sample's rows.
        rows: Rows in all.
    """

    owner: str
    network: str
    method: str
    gradient: str
    row: tuple[tuple[Any, ...], dict[str, Any]]
    batch: int | None = None
    rows: float = 0.0


@dataclass
class Counting:
    """Wraps every network of a target, in any thread, and notes what it is called with."""

    prepared: Prepared
    works: dict[tuple[Any, ...], Work] = field(default_factory=dict)
    inside: threading.local = field(default_factory=threading.local)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Count within."""
        wrapped: list[tuple[Any, str]] = []

        def wrap(thing: Any, owner: str, network: str, method: str) -> None:
            setattr(thing, method, self._counted(getattr(thing, method), owner, network, method))
            wrapped.append((thing, method))

        for network, method in TARGET.items():
            wrap(self.prepared.target, "target", network, method)
        for spec, encoder in self.prepared.encoders.items():
            for method in ENCODER:
                wrap(encoder, spec, f"encoder {spec}", method)
        target = self.prepared.target
        if target.opened_for:  # what it asks was taken from it then
            target.denoiser.predict = target.predict
        try:
            yield
        finally:
            for thing, method in wrapped:
                delattr(thing, method)
            target.denoiser.predict = target.predict

    def _counted(self, call: Callable[..., Any], owner: str, network: str, method: str) -> Callable[..., Any]:
        def counting(*inputs: Any, **states: Any) -> Any:
            if getattr(self.inside, "one", False):  # an encoder may ask itself, or the target
                return call(*inputs, **states)
            self.inside.one = True
            try:
                self._note(owner, network, method, inputs, states)
                return call(*inputs, **states)
            finally:
                self.inside.one = False

        return counting

    def _note(self, owner: str, network: str, method: str, inputs: tuple[Any, ...], states: dict[str, Any]) -> None:
        count, tensors = len(inputs[0]), [x for x in (*inputs, *states.values()) if isinstance(x, torch.Tensor)]
        gradient = ""
        if torch.is_grad_enabled() and network == "denoiser":
            gradient = "inputs" if any(x.requires_grad for x in tensors) else "weights"
        batch = count if gradient == "weights" else 1 if method in ("worded", "captioned") else None
        key = (owner, method, gradient, batch, tuple(tuple(x.shape[1:]) for x in tensors))
        with self.lock:
            if key not in self.works:
                row = tuple(_row(x) for x in inputs), {name: _row(x) for name, x in states.items()}
                self.works[key] = Work(owner, network, method, gradient, row, batch)
            self.works[key].rows += count

    def found(self, run: Once) -> list[Work]:
        """The work of a run, padding taken off in proportion."""
        works, given = [], list(self.works.values())
        for work in given:
            exact = sum(w.rows for w in given if w.network == work.network and w.batch is not None)
            rows, padding = run.rows.get(work.network, 0) - exact, run.padding.get(work.network, 0)
            share = rows / (rows + padding) if work.batch is None and rows > 0 else 1.0
            works.append(replace(work, rows=work.rows * share))
        return works


def _row(value: Any) -> Any:
    return value[:1].detach().clone() if isinstance(value, torch.Tensor) else value[:1]


# A process's peak counts what its parent held when it was made, so a small one stands between.
SMALL = """
import json, resource, subprocess, sys, time
began = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
seconds, kilobytes = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps({"seconds": seconds, "peak_mb": kilobytes * 1024 / 1e6}))
sys.exit(done.returncode)
"""


def command(arguments: Sequence[str]) -> dict[str, float]:
    """`mia-bench` in a process of its own: seconds from start to end, and the most memory it held.

    Raises:
        RuntimeError: It failed.
    """
    asked = [sys.executable, "-m", "mia_bench", *arguments]
    done = subprocess.run([sys.executable, "-c", SMALL, *asked], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"mia-bench {' '.join(arguments)}: status {done.returncode}\n{done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found
