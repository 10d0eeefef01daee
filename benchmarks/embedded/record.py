"""Audit the shipped targets and record what the leaderboard and the pages show.

    python record.py RESULTS RUNS

Writes to RESULTS one file per target and noise seed, the mirror test, the memorised images, and in `quick` what
`mia-bench run --attacks all` gives; RUNS keeps the run folders, so that a second start resumes. With the first seed
attacks run at the settings of their papers, as far as the embedded data allow; with the other seeds only the cheap ones
do. Record from a clean checkout on an idle machine (about an hour and a quarter on 2 cores); nothing is written to
RESULTS before all is measured, so it stays clean.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mia_bench.engine.label import Label
from mia_bench.engine.mirror import mirror
from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.run import read_result, run, run_tasks
from mia_bench.metrics.holm import holm
from mia_bench.plugins import Registry
from mia_bench.report.text import json_text
from mia_bench.result import Result

TARGETS = ("emoji-realworld", "emoji-overtrain", "emoji-mirror")
SEEDS = range(5)
CHEAP = "clid,clid-vec,loss,mc,pfami,pia,pian,secmi,sima,structural,wen"
TRAINED = "gsa,pfami-nns,secmi-nns"
DRAWN = (
    "drc[emoji-lpips],drc[emoji-lpips]@guided,sweep[emoji-lpips],rediffuse,rediffuse@quick,"
    "iip[emoji-clip]@string,iip[emoji-clip]@string-d,iip[emoji-clip]@string-m,wu-ip,wu-iip,"
    "wu-is[emoji-clip],wu-iis[emoji-clip],wu-iis[emoji-clip]@training-free,"
    "wu-iii[emoji-clip],wu-iii[emoji-clip]@training-free,wu-iv[emoji-clip]"
)
SMALL = {"side": 16, "stages": 1, "epochs": 8, "rate": 1e-3, "rows": 32}  # a classifier for 260 images of 32 px
OPTIONS: dict[str, dict[str, Any]] = {
    "drc": {"roi": "variance"},  # attention is DINO's
    "sweep": {"samples": 30},  # 1,208 queries an image
    "wu-ip": SMALL,
    "wu-iip": SMALL,
    **{name: {"epochs": 100} for name in ("wu-is", "wu-iis", "wu-iii", "wu-iv")},
}


def audit(registry: Registry, target: str, seed: int, folder: Path) -> tuple[Result, Result]:
    """The results on membership, and on memorised images against other members."""
    attacks, given = (CHEAP, {}) if seed else (f"{CHEAP},{TRAINED},{DRAWN}", OPTIONS)
    options = RunOptions(
        attacks=attacks, options=given, target=target, seed=seed, out=folder, full=True, positives="memorised"
    )
    (compared,) = run_tasks(registry, replace(options, negatives="members"))
    return read_result(folder / "results.json"), compared


def memorised(result: Result, run_folder: Path) -> list[dict[str, Any]]:
    """AUC of each row for the memorised images against the audit set's members; for attacks, two-sided p-values.

    p is of the Mann-Whitney test, adjusted over attacks by Holm's method.
    """
    from scipy.stats import mannwhitneyu

    scores = pq.read_table(run_folder / "scores.parquet").to_pylist()

    def p_value(label: str) -> float:
        parts = Label.parse(label)
        own = [s for s in scores if (s["attack"], s["preset"]) == (parts.unset, parts.preset)]
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
    usual = run(registry, RunOptions(target=TARGETS[0], out=runs / "quick"))
    records[f"quick/{TARGETS[0]}-seed0"] = usual.model_dump(mode="json")
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
        (results / name).parent.mkdir(exist_ok=True)
        (results / f"{name}.json").write_text(json_text(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*(Path(argument) for argument in sys.argv[1:]))
