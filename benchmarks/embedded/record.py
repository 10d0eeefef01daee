"""Audit the shipped targets and record what the leaderboard and the pages show.

    python record.py RESULTS RUNS

Writes to RESULTS one file per target and noise seed, the mirror test and the memorised images; RUNS keeps the run
folders, so that a second start resumes. All attacks run with five seeds on `emoji-realworld`; on the other targets the
costly ones run with the first alone. Record from a clean checkout; nothing is written to RESULTS before all is
measured, so it stays clean.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mia_bench.engine.mirror import mirror
from mia_bench.engine.run import RunOptions, read_result, run_tasks
from mia_bench.metrics.mirror import holm
from mia_bench.plugins import Registry
from mia_bench.report.text import json_text
from mia_bench.result import Result

TARGETS = ("emoji-realworld", "emoji-overtrain", "emoji-mirror")
SEEDS = range(5)
CHEAP = "not (gsa or pfami-nns or secmi-nns)"  # those take three quarters of the time


def audit(registry: Registry, target: str, seed: int, folder: Path) -> tuple[Result, Result]:
    """The results on membership, and on memorised images against other members."""
    keyword = CHEAP if seed and target != TARGETS[0] else None
    options = RunOptions(target=target, seed=seed, out=folder, keyword=keyword, positives="memorised")
    (compared,) = run_tasks(registry, replace(options, negatives="members"))
    return read_result(folder / "results.json"), compared


def memorised(result: Result, run_folder: Path) -> list[dict[str, Any]]:
    """AUC of each row for the memorised images against the audit set's members; for attacks, two-sided p-values.

    p is of the Mann-Whitney test, adjusted over attacks by Holm's method.
    """
    from scipy.stats import mannwhitneyu

    scores = pq.read_table(run_folder / "scores.parquet").to_pylist()

    def p_value(label: str) -> float:
        attack, _, preset = label.partition("@")
        own = [s for s in scores if (s["attack"], s["preset"]) == (attack, preset)]
        positive = [s["score"] for s in own if s["split"] == "memorised"]
        return float(mannwhitneyu(positive, [s["score"] for s in own if s["split"] == "audit" and s["label"]]).pvalue)

    rows: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for row in result.rows:
        if row.evaluation:
            auc = row.evaluation.auc
            found = {"attack": row.label, "n": row.n, "auc": auc.value, "low": auc.low, "high": auc.high}
            rows[row.control].append(found if row.control else found | {"p": p_value(row.label)})
    adjusted = holm([row["p"] for row in rows[False]])
    return [row | {"holm": p} for row, p in zip(rows[False], adjusted, strict=True)] + rows[True]


def main(results: Path, runs: Path) -> None:
    registry, records, found = Registry.load(), dict[str, Any](), dict[str, Any]()
    for seed in SEEDS:
        for target in TARGETS:
            folder = runs / f"{target}-{seed}"
            result, compared = audit(registry, target, seed, folder)
            records[f"{target}-seed{seed}"] = result.model_dump(mode="json")
            if seed == 0:
                found[target] = memorised(compared, folder)
            shown = {r.label: round(r.evaluation.auc.value or 0, 3) for r in result.rows if r.evaluation}
            print(target, seed, shown, flush=True)
    pair = [runs / f"{target}-0" for target in TARGETS[1:]]
    tested = [row.to_json() for row in mirror(*pair)]
    records["mirror"] = {"benchmark": "mirror", "seed": 0, "runs": TARGETS[1:], "attacks": tested}
    records["memorised"] = {"benchmark": "memorised", "seed": 0, "targets": found}
    for name, content in records.items():
        (results / f"{name}.json").write_text(json_text(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
