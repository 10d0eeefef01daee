"""Audit the shipped targets and record what the leaderboard and the pages show.

    python record.py RESULTS RUNS

Writes to RESULTS one file per target and noise seed, the mirror test and the memorised images; RUNS keeps the run
folders, so that a second start resumes. Record from a clean checkout; nothing is written to RESULTS before all is
measured, so it stays clean.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mia_bench.engine.mirror import mirror
from mia_bench.engine.run import RunOptions, run
from mia_bench.metrics import evaluate
from mia_bench.metrics.mirror import holm
from mia_bench.plugins import Registry
from mia_bench.report.text import json_text

TARGETS = ("emoji-realworld", "emoji-overtrain", "emoji-mirror")
SEEDS = range(5)


def memorised(run_folder: Path) -> list[dict[str, Any]]:
    """AUC of each attack for the memorised images against the audit set's members, and two-sided p-values.

    p is of the Mann-Whitney test, adjusted over attacks by Holm's method.
    """
    from scipy.stats import mannwhitneyu

    scores: dict[str, dict[str, list[float]]] = {}
    for row in pq.read_table(run_folder / "scores.parquet").to_pylist():
        if row["split"] == "memorised" or (row["split"] == "audit" and row["label"]):
            label = f"{row['attack']}@{row['preset']}" if row["preset"] else row["attack"]
            scores.setdefault(label, {"memorised": [], "audit": []})[row["split"]].append(row["score"])
    rows = []
    for name, own in scores.items():
        positive, negative = own["memorised"], own["audit"]
        if not positive:  # controls are fitted on the audit set alone
            continue
        labels = np.repeat([True, False], [len(positive), len(negative)])
        auc = evaluate([*positive, *negative], labels, n_resamples=1).auc
        p_value = float(mannwhitneyu(positive, negative).pvalue)
        where = {"attack": name, "n": [len(positive), len(negative)]}
        rows.append({**where, "auc": auc.value, "low": auc.low, "high": auc.high, "p": p_value})
    return [{**row, "holm": p} for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True)]


def main(results: Path, runs: Path) -> None:
    registry, records = Registry.load(), dict[str, Any]()
    for seed in SEEDS:
        for target in TARGETS:
            result = run(registry, RunOptions(target=target, seed=seed, out=runs / f"{target}-{seed}"))
            records[f"{target}-seed{seed}"] = result.model_dump(mode="json")
            shown = {r.label: round(r.evaluation.auc.value or 0, 3) for r in result.rows if r.evaluation}
            print(target, seed, shown, flush=True)
    pair = [runs / f"{target}-0" for target in TARGETS[1:]]
    tested = [row.to_json() for row in mirror(*pair)]
    found = {target: memorised(runs / f"{target}-0") for target in TARGETS}
    records["mirror"] = {"benchmark": "mirror", "seed": 0, "runs": TARGETS[1:], "attacks": tested}
    records["memorised"] = {"benchmark": "memorised", "seed": 0, "targets": found}
    for name, content in records.items():
        (results / f"{name}.json").write_text(json_text(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
