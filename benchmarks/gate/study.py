"""How often the gate raises a false alarm, and how often it finds a change of the size that it says it can.

python benchmarks/gate/study.py OUT.json [REPEATS_AUC] [REPEATS_RATES]

Simulated checkpoints: normal scores, members shifted, of the same samples before and after (correlation 0.8); the
attacks of a family share half of their variance. False alarms: nothing changed, or all changed by just the margin; any
attack found counts. Power: one attack changes by what the gate, asked about the same baseline when nothing had changed,
printed as detectable; it has to be found among attacks that did not change.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm
from threadpoolctl import threadpool_limits

from mia_bench.engine.provenance import environment
from mia_bench.metrics.gate import TAILS, Change, Direction, change, judged_together
from mia_bench.metrics.intervals import clopper_pearson

SIZES = (50, 250, 2500)  # per class
FAMILIES = (1, 5, 20)  # attacks
METRICS = ("auc", "tpr_at_1")
SHIFTS = (0.0, 1.0)  # of members before, in standard deviations: chance, and an AUC of 0.76
DIRECTIONS: tuple[Direction, ...] = ("rise", "both")
CORRELATION, SHARED = 0.8, 0.5
ALPHA, MARGIN = 0.05, 0.02
Table = NDArray[np.float64]


class Checkpoints:
    """Scores of many attacks before and after, (attacks, 2 n) each; the first n samples are members."""

    def __init__(self, rng: np.random.Generator, n: int, shift: float) -> None:
        self.rng, self.n, self.shift = rng, n, shift
        self.member = np.arange(2 * n) < n
        self.noise = self._noise()
        self.before = self.noise + shift * self.member

    def after(self, shift: float) -> Table:
        """Of another checkpoint, with members shifted so."""
        return CORRELATION * self.noise + sqrt(1 - CORRELATION**2) * self._noise() + shift * self.member

    def changes(self, metric: str, after: Table) -> list[Change]:
        """Of each attack; empty where there are too few samples."""
        pairs = zip(self.before, after, strict=False)
        found = [change(metric, ours, theirs, self.member) for ours, theirs in pairs]
        return [one for one in found if isinstance(one, Change)]

    def _noise(self) -> Table:
        shared, own = self.rng.standard_normal(2 * self.n), self.rng.standard_normal((FAMILIES[-1], 2 * self.n))
        return sqrt(SHARED) * shared + sqrt(1 - SHARED) * own


def value_of(metric: str, shift: float) -> float:
    """The true metric at a shift."""
    return float(norm.cdf(shift / sqrt(2)) if metric == "auc" else norm.cdf(shift + norm.ppf(TAILS[metric])))


def shift_of(metric: str, value: float) -> float:
    """The shift that has a metric."""
    return float(sqrt(2) * norm.ppf(value) if metric == "auc" else norm.ppf(value) - norm.ppf(TAILS[metric]))


def cell(metric: str, n: int, shift: float, repeats: int, seed: int) -> list[dict[str, Any]]:
    """Both rates for every family and direction."""
    rng, counts = np.random.default_rng(seed), Counter[tuple[str, int, str]]()
    sizes: dict[tuple[int, str], list[float]] = {(f, d): [] for f in FAMILIES for d in DIRECTIONS}
    raised = shift_of(metric, value_of(metric, shift) + MARGIN)
    for _ in range(repeats):
        run = Checkpoints(rng, n, shift)
        changes, margined = run.changes(metric, run.after(shift)), run.changes(metric, run.after(raised))
        for family in FAMILIES:
            for way in DIRECTIONS:
                tests = judged_together(changes[:family], way, alpha=ALPHA)
                counts["alarms", family, way] += any(one.found for one in tests)
                tests_margin = judged_together(margined[:family], way, MARGIN, ALPHA)
                counts["alarms_at_margin", family, way] += any(one.found for one in tests_margin)
                size = tests[0].detectable
                if size is None or (true := value_of(metric, shift) + size) >= 1:
                    continue
                sizes[family, way].append(size)
                (changed,) = run.changes(metric, run.after(shift_of(metric, true))[:1])
                power = judged_together([changed, *changes[1:family]], way, alpha=ALPHA)
                counts["found", family, way] += power[0].found
    rows = []
    for family, way in sizes:
        row: dict[str, Any] = {"metric": metric, "n": n, "before": value_of(metric, shift), "attacks": family}
        row |= {"direction": way, "repeats": repeats}
        for name in ("alarms", "alarms_at_margin"):
            row[name] = _share(counts[name, family, way], repeats)
            row[name]["binomial_p"] = float(binomtest(row[name]["count"], repeats, ALPHA, alternative="greater").pvalue)
        told = sizes[family, way]
        row["detectable"] = float(np.median(told)) if told else None
        row["found"] = _share(counts["found", family, way], len(told)) if told else None
        rows.append(row)
    return rows


def _share(count: int, total: int) -> dict[str, Any]:
    low, high = clopper_pearson(count, total)
    return {"count": count, "of": total, "share": count / total, "low": low, "high": high}


def measure(repeats: dict[str, int]) -> list[dict[str, Any]]:
    """Every cell in which the metric is defined."""
    rows: list[dict[str, Any]] = []
    cells = [(m, n, s) for m in METRICS for n in SIZES for s in SHIFTS if m == "auc" or TAILS[m] * n >= 1]
    cells = [one for one in cells if repeats[one[0]]]
    for seed, (metric, n, shift) in enumerate(cells):
        rows += cell(metric, n, shift, repeats[metric], seed)
        print(f"{metric}, {n} per class, shift {shift:g}: done", file=sys.stderr, flush=True)
    return rows


def main(out: Path, repeats_auc: int = 2000, repeats_rates: int = 500) -> None:
    content: dict[str, Any] = {"benchmark": "gate", "environment": environment("cpu"), "alpha": ALPHA, "margin": MARGIN}
    content |= {"correlation": CORRELATION, "shared": SHARED}
    with threadpool_limits(1):
        content["cells"] = measure({"auc": repeats_auc, "tpr_at_1": repeats_rates})
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
