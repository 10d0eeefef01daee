"""How often the intervals of `mia_bench.metrics` hold the true number, on scores whose truth is known.

python benchmarks/metrics/coverage.py OUT.json [REPEATS [WORKERS]]

Non-members score N(0, 1), members N(d', 1), as many of each. Every repeat draws new scores, and a calibration set of
the same size for the threshold that is carried over, and asks `evaluate` as a run does. The truth is that of the
distributions: at the threshold with exactly the false-positive rate that is allowed, at the best of all thresholds
(oracle), or at the very threshold that was carried over. Where the sample-size rule leaves a metric undefined, so does
this table. A repeat's seed is its number in its cell, whatever the workers. A file of the same settings, commit and
machine is gone on with.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm
from threadpoolctl import threadpool_limits

from mia_bench.engine.provenance import environment
from mia_bench.metrics import Evaluation, best_threshold, clopper_pearson, evaluate

SEED = 0
SEPARATIONS = (0.0, 0.5, 1.0, 2.0)  # d'
SIZES = (50, 250, 2500)  # of each class
LEVEL, RESAMPLES = 0.95, 1000
METRICS = ("auc", "tpr_at_1", "tpr_at_01", "tnr_at_1", "tnr_at_01", "asr_oracle", "asr_calibrated")
Found = dict[str, dict[str, Any]]  # metric -> its interval and truth in one repeat


def truth_of(separation: float, threshold: float) -> dict[str, float]:
    """The numbers of the distributions themselves; `threshold` is the one carried over."""
    tails = {name: float(norm.sf(norm.isf(rate) - separation)) for name, rate in (("1", 0.01), ("01", 0.001))}
    return {
        "auc": float(norm.cdf(separation / np.sqrt(2))),
        # Two normals of one spread are each other's mirror image, so both tails have one truth.
        **{f"{kind}_at_{name}": value for name, value in tails.items() for kind in ("tpr", "tnr")},
        "asr_oracle": float(norm.cdf(separation / 2)),
        "asr_calibrated": float(norm.sf(threshold - separation) + norm.cdf(threshold)) / 2,
    }


def repeat(separation: float, n: int, number: int) -> Found:
    """Every metric of one draw; those that are undefined have `low` None."""
    rng = np.random.default_rng([SEED, SEPARATIONS.index(separation), n, number])
    member = np.arange(2 * n) < n
    threshold = best_threshold(rng.normal(size=2 * n) + separation * member, member)
    scores = rng.normal(size=2 * n) + separation * member
    found: Evaluation = evaluate(scores, member, calibration_threshold=threshold, n_resamples=RESAMPLES, level=LEVEL)
    truth = truth_of(separation, threshold)
    return {
        name: {"truth": truth[name]} | getattr(found, name).model_dump(include={"value", "low", "high", "status"})
        for name in METRICS
    }


def cell(separation: float, n: int, repeats: list[Found]) -> Iterator[dict[str, Any]]:
    """A row for each metric."""
    for name in METRICS:
        drawn = [one[name] for one in repeats]
        row: dict[str, Any] = {"d": separation, "n": n, "metric": name, "status": drawn[0]["status"]}
        if drawn[0]["low"] is None:
            yield row
            continue
        truth, value, low, high = (np.array([d[k] for d in drawn]) for k in ("truth", "value", "low", "high"))
        below, above = int((truth < low).sum()), int((truth > high).sum())
        covered = len(drawn) - below - above
        error = clopper_pearson(covered, len(drawn))
        yield row | {
            "repeats": len(drawn),
            "truth": float(truth.mean()),
            "mean": float(value.mean()),
            "truth_below": below,
            "truth_above": above,
            "coverage": covered / len(drawn),
            "coverage_low": error[0],
            "coverage_high": error[1],
            "width": float((high - low).mean()),
            "first": [float(value[0]), float(low[0]), float(high[0])],
        }


def main(out: Path, repeats: int = 2000, workers: int = 0) -> None:
    content: dict[str, Any] = {"benchmark": "coverage", "environment": environment("cpu"), "seed": SEED}
    content |= {"level": LEVEL, "resamples": RESAMPLES, "repeats": repeats}
    before = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    cells = before.pop("cells", [])
    if before != content:
        cells = []
    done = {(row["d"], row["n"]) for row in cells}
    with (
        threadpool_limits(1),
        ProcessPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool,
    ):
        for separation, n in ((d, n) for n in SIZES for d in SEPARATIONS if (d, n) not in done):
            drawn = list(pool.map(partial(repeat, separation, n), range(repeats), chunksize=max(1, repeats // 50)))
            cells += cell(separation, n, drawn)
            out.write_text(json.dumps({**content, "cells": cells}, indent=1) + "\n", encoding="utf-8")
            print(f"n = {n}, d' = {separation:g}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
