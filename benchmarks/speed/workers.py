"""Two workers against one, each on one thread: `python benchmarks/speed/workers.py [--out FILE.json]`.

`mia-bench run --workers N --threads 1` into a new folder, with one worker and with two in turn. Two ratios of one
worker's seconds to two workers':

* measuring: after start-up, from the batch by which each worker may have finished one to the last, for each sample
* whole: the command, with imports, loading and scoring

Single timings vary, so a figure is the median of pairs with the interval that the sign test gives. Needs two idle
cores. Exits with 1 below 1.8 after start-up. This file is also the plugin that notes when batches are done.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from mia_bench import hookimpl

LEAST = 1.8
NOTES = "WORKERS_BENCHMARK_NOTES"


@hookimpl
def mia_bench_batch_measured(event: Any) -> None:
    """When so many samples were done."""
    if path := os.environ.get(NOTES):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps([time.perf_counter(), event.done]) + "\n")


def run(options: Sequence[str], workers: int) -> dict[str, float]:
    """One command: seconds in all, and of measuring for each sample."""
    with tempfile.TemporaryDirectory() as folder:
        asked = [sys.executable, "-m", "mia_bench", "run", *options, "--out", f"{folder}/run", "--json"]
        asked += ["-p", __file__, "--workers", str(workers), "--threads", "1"]
        notes = Path(folder) / "notes"
        began = time.perf_counter()
        done = subprocess.run(asked, env={**os.environ, NOTES: str(notes)}, capture_output=True, text=True)
        whole = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(f"{' '.join(asked)}: status {done.returncode}\n{done.stderr[-2000:]}")
        came = [json.loads(line) for line in notes.read_text(encoding="utf-8").splitlines()]
    return {"whole_s": whole, "batches": len(came), "s_per_sample": per_sample(came, workers)}


def per_sample(came: Sequence[tuple[float, int]], workers: int) -> float:
    """Seconds for each sample, from the batch by which each worker may have finished one.

    Raises:
        SystemExit: Too few batches to say.
    """
    if len(came) < 3 * workers:
        raise SystemExit(f"{len(came)} batches are too few for {workers} workers; raise --limit or lower --batch")
    (start, before), (end, all_of_them) = came[workers - 1], came[-1]
    return (end - start) / (all_of_them - before)


@click.command()
@click.option("--pairs", default=6, show_default=True)
@click.option("--target", default="emoji-realworld", show_default=True)
@click.option("--attacks", default="clid,secmi,pfami,loss", show_default=True)
@click.option("--limit", default=80, show_default=True, help="Samples of each class in each split.")
@click.option("--batch", default=32, show_default=True, help="Samples per batch, and rows per call.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the record here as JSON; resumed if it exists.")
def main(pairs: int, target: str, attacks: str, limit: int, batch: int, out: Path | None) -> int:
    from timing import Record, shown, spread

    from mia_bench.engine.provenance import environment

    choice = {"target": target, "attacks": attacks, "limit": limit, "batch": batch}
    record = Record(out, {"benchmark": "speed/workers", **choice, "environment": {**environment("cpu"), "threads": 1}})
    options = ["--target", target, "--attacks", attacks, "--limit", str(limit), "--device", "cpu"]
    options += ["--batch", str(batch), "--rows", str(batch)]
    found = []
    for pair in range(pairs):
        one, two = (record.once(f"pair {pair}, workers {n}", lambda n=n: run(options, n)) for n in (1, 2))  # type: ignore[misc]
        found.append((one, two))
    figures = {
        "measuring": spread([one["s_per_sample"] / two["s_per_sample"] for one, two in found]),
        "whole": spread([one["whole_s"] / two["whole_s"] for one, two in found]),
    }
    record.write(figures=figures)
    print(f"measuring {shown(figures['measuring'])}, with start-up and scoring {shown(figures['whole'])}")
    return 0 if figures["measuring"]["median"] >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main(standalone_mode=False))
