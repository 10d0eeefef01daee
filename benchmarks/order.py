"""Do the embedded targets order the attacks as when they were made? `python benchmarks/order.py`.

The reference figures were computed once, by another program, on 300 + 300 of the images with other noise. The run here
uses all 491 + 491. Each AUC should lie in the reference's interval, and every attack that works should rise from the
default to the overtrained target.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from mia_bench.engine.run import RunOptions, run
from mia_bench.plugins import Registry
from mia_bench.report.text import table

# (attack, timestep) -> AUC and 95 % bootstrap interval on the default and on the overtrained target.
REFERENCE = {
    ("loss", 200): ((0.6808, 0.6396, 0.7227), (0.8537, 0.8231, 0.8841)),
    ("loss", 400): ((0.6775, 0.6394, 0.7151), (0.8840, 0.8570, 0.9063)),
    ("pia", 200): ((0.7531, 0.7149, 0.7874), (0.9261, 0.9031, 0.9460)),
    ("pia", 400): ((0.7268, 0.6861, 0.7652), (0.9350, 0.9139, 0.9558)),
    ("clid@null", 400): ((0.8601, 0.8285, 0.8866), (0.9791, 0.9686, 0.9877)),
}
TARGETS = ("emoji-default", "emoji-overtrain")


def audit(target: str, t: int) -> dict[str, Any]:
    """AUC with interval of each attack at one timestep; CLiD at 300, 400 and 500 with alpha = 1."""
    options = {"loss": {"t": t}, "pia": {"t": t}, "clid@null": {"t": [300, 400, 500], "alpha": 1.0}}
    with tempfile.TemporaryDirectory() as folder:
        wanted = RunOptions(attacks="loss,pia,clid@null", target=target, options=options, out=Path(folder))
        result = run(Registry.load(), wanted)
    found = {}
    for row in result.rows:
        assert row.evaluation is not None, row.reason
        auc = row.evaluation.auc
        found[row.label] = {"auc": auc.value, "low": auc.low, "high": auc.high, "n": row.n}
    return {"attacks": found, "environment": result.environments[0]}


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("benchmarks/results/order.json"), show_default=True
)
def main(out: Path) -> None:
    measured = {(target, t): audit(target, t) for target in TARGETS for t in (200, 400)}
    rows, outside = [], 0
    for (attack, t), references in REFERENCE.items():
        values = [measured[target, t]["attacks"][attack]["auc"] for target in TARGETS]
        inside = all(low <= value <= high for value, (_, low, high) in zip(values, references, strict=True))
        fine = inside and values[1] > values[0]
        outside += not fine
        shown = [
            f"{v:.3f} ({r:.3f} [{low:.3f}, {high:.3f}])" for v, (r, low, high) in zip(values, references, strict=True)
        ]
        rows.append([attack, "300-500" if "clid" in attack else t, *shown, "yes" if fine else "NO"])
    print(table(rows, ["attack", "t", *(f"{t}: AUC (reference)" for t in TARGETS), "agrees and rises"]))
    record = {f"{target} t={t}": found["attacks"] for (target, t), found in measured.items()}
    environment = measured[TARGETS[0], 200]["environment"]
    content = {"benchmark": "order", "measured": record, "outside": outside, "environment": environment}
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if outside else 0)


if __name__ == "__main__":
    main()
