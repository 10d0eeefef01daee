"""The same numbers on a GPU: `python benchmarks/gpu/same_numbers.py --size full --device cuda --out FILE.json`.

The embedded benchmark, all attacks (as `--attacks all` plans them, and without controls), in float32 with TF32 off on
the CPU and on the device: every term that an attack measures, for every sample, must agree within its tolerance. Then
in bfloat16 and float16 on the device: what that does to the AUC of each attack, and to the order of the samples. The
table decides which attacks may run in half precision.

Each precision is a run folder under `--work`, so the same command goes on where it was stopped. Exits with 1 if
float32 does not agree. On the CPU, `--size tiny --device cpu` tries all steps in seconds.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from once import only
from timing import Record

from mia_bench.engine.prepare import Prepared, RunOptions, prepare
from mia_bench.engine.provenance import environment
from mia_bench.engine.run import run_prepared
from mia_bench.plugins import Registry
from mia_bench.report.text import table
from mia_bench.result import Result

DTYPES = ("float32", "bfloat16", "float16")
SIZES: dict[str, dict[str, Any]] = {
    "full": {"attacks": "all", "limit": None},
    "tiny": {"attacks": "loss,pia,clid", "limit": 4, "rows": 8},
}
# Relative to the term's own scale. Sums over a chain of predictions, and differences of near ones, carry more rounding.
TOLERANCE = 1e-4
DIFFERENCES = {"secmi": 1e-2, "secmi-nns": 1e-2, "pia": 1e-3, "pian": 1e-3, "gsa": 1e-2}
GENERATING = 5e-2  # pictures after tens of steps


def tolerance(name: str, queries: int) -> float:
    """How far an attack's terms may be from the CPU's, relative to their scale."""
    return DIFFERENCES.get(name, GENERATING if queries >= 40 else TOLERANCE)


def measured(registry: Registry, work: Path, options: RunOptions, name: str) -> tuple[Prepared, Result]:
    """One precision: the plan, and its result; goes on in its folder."""
    chosen = replace(options, out=work / name)
    prepared = only(prepare(registry, chosen))
    return prepared, run_prepared(registry, prepared, chosen)[0]


def distances(one: Prepared, other: Prepared, label: str) -> dict[str, float]:
    """Of an attack's terms on two devices: the largest and the median difference, relative to each term's scale."""
    found = [
        prepared.store.terms(next(a.fingerprint for a in prepared.plan.attacks if a.label == label), ids(prepared))[1]
        for prepared in (one, other)
    ]
    largest, middle = 0.0, 0.0
    for name, here in found[0].items():
        there = found[1][name]
        both = np.isfinite(here) & np.isfinite(there)
        if not np.array_equal(np.isfinite(here), np.isfinite(there)):
            return {"largest": float("inf"), "median": float("inf")}
        gap = np.abs(here - there)[both] / max(float(np.abs(here[both]).mean()), 1e-30) if both.any() else np.zeros(1)
        largest, middle = max(largest, float(gap.max())), max(middle, float(np.median(gap)))
    return {"largest": largest, "median": middle}


def ids(prepared: Prepared) -> Any:
    return prepared.plan.samples.pairs


def measuring(prepared: Prepared) -> set[str]:
    return {a.label for a in prepared.plan.attacks}


def changes(before: Result, after: Result, one: Prepared, other: Prepared) -> dict[str, dict[str, float]]:
    """What a precision does to each attack: terms, AUC."""
    found = {}
    theirs = {row.label: row.evaluation for row in after.rows}
    for row in before.rows:
        ours, same = row.evaluation, theirs.get(row.label)
        if ours and same and ours.auc.value is not None and same.auc.value is not None and row.label in measuring(one):
            change = {"auc": same.auc.value, "auc_change": same.auc.value - ours.auc.value}
            found[row.label] = {**change, **distances(one, other, row.label)}
    return found


@click.command()
@click.option("--size", type=click.Choice(list(SIZES)), default="full", show_default=True)
@click.option("--device", default="cuda", show_default=True)
@click.option("--target", default="emoji-realworld", show_default=True)
@click.option("--dtypes", default=",".join(DTYPES), show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/same-numbers"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the record here as JSON; resumed if it exists.")
def main(size: str, device: str, target: str, dtypes: str, work: Path, out: Path | None) -> int:
    registry = Registry.load()
    about = {"benchmark": "gpu/same_numbers", "size": size, "target": target, "dtypes": dtypes.split(",")}
    record = Record(out, {**about, "environment": environment(device)})
    options = RunOptions(target=target, dataset="fluent-emoji", **SIZES[size])
    reference, on_cpu = measured(registry, work, replace(options, device="cpu"), "cpu")
    known = {a.label: (a.name, a.queries) for a in reference.plan.attacks}
    figures: dict[str, dict[str, Any]] = {row.label: {} for row in on_cpu.rows}
    for dtype in dtypes.split(","):
        own, result = measured(registry, work, replace(options, device=device, dtype=dtype), f"{device}-{dtype}")
        step = record.once(dtype, lambda own=own, result=result: changes(on_cpu, result, reference, own))  # type: ignore[misc]
        for label, change in step.items():
            figures[label][dtype] = change
    figures = {label: of for label, of in figures.items() if of}
    allowed = {label: tolerance(*known[label]) for label in figures}
    plain = {label: of["float32"]["largest"] for label, of in figures.items() if "float32" in of}
    beyond = [label for label, largest in plain.items() if not largest <= allowed[label]]
    record.write(figures={"attacks": figures, "tolerances": allowed, "beyond": beyond})
    rows = [
        [label, *(f"{of[d]['largest']:.1e}, {of[d]['auc_change']:+.4f}" if d in of else "–" for d in dtypes.split(","))]
        for label, of in figures.items()
    ]
    print(table(rows, ["attack", *(f"{d}: difference, change of AUC" for d in dtypes.split(","))]))
    print(f"float32 beyond its tolerance: {', '.join(beyond) or 'none'}")
    return 1 if beyond or not figures else 0


if __name__ == "__main__":
    sys.exit(main(standalone_mode=False))
