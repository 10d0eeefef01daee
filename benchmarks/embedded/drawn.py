"""Why attacks that draw are weak on the embedded targets: `python drawn.py RUNS OUT.json`, after `record.py`.

Reads stored terms only. IIP: each level of m, and the loss without a prompt that explains them. Wu et al.'s III: how
far the fit of the generated image to its caption is that of the original.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from probe import TARGETS, auc_of

from mia_bench.engine.plan import read_plan
from mia_bench.store import Store, Terms


class Run:
    """The images of a run in three groups, and what was measured of them."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.plan = read_plan(self.store)
        samples = self.plan.samples
        self.groups = {
            "memorised": np.array(samples.split) == "memorised",
            "members": samples.audit & samples.is_member,
            "non-members": samples.audit & ~samples.is_member,
        }

    def terms(self, label: str) -> Terms:
        """Term -> `(N, ...)`, NaN where a sample was not measured."""
        (planned,) = (a for a in self.plan.attacks if a.label == label)
        found, terms = self.store.terms(planned.fingerprint, self.plan.samples.pairs)
        full = {name: np.full((len(found), *values.shape[1:]), np.nan) for name, values in terms.items()}
        for name, values in terms.items():
            full[name][found] = values
        return full

    def auc(self, values: NDArray[np.float64], positive: str, negative: str) -> dict[str, Any]:
        """Of one group against another, higher = positive."""
        kept = (self.groups[positive] | self.groups[negative]) & ~np.isnan(values)
        return auc_of(values[kept], self.groups[positive][kept])


def iip(run: Run) -> dict[str, Any]:
    """AUC of d, m, and m_k from k = t_I down to 1, both tasks; medians of the loss under the empty caption."""
    terms = run.terms("iip[emoji-clip]@string")
    norms = np.sqrt(terms["power"])  # (N, levels)
    scores = {"d": terms["d"], "m": norms.mean(axis=1)}
    tasks = {"memorised": ("memorised", "members"), "membership": ("members", "non-members")}
    loss = run.terms("clid")["losses"][:, :, -1].mean(axis=1)  # t = 440, 450, 460
    return {
        "null loss": {name: float(np.nanmedian(loss[group])) for name, group in run.groups.items()},
        **{
            task: {name: run.auc(values, *groups) for name, values in scores.items()}
            | {"levels": [run.auc(level, *groups)["value"] for level in norms.T]}
            for task, groups in tasks.items()
        },
    }


def faithfulness(run: Run) -> dict[str, float]:
    """Correlation of cos(E(c), E(x')) with cos(E(c), E(x)), by group."""
    of = {name: v / np.linalg.norm(v, axis=1, keepdims=True) for name, v in run.terms("wu-iv[emoji-clip]").items()}
    generated, original = ((of["caption"] * of[name]).sum(axis=1) for name in ("generated", "original"))
    return {name: float(np.corrcoef(generated[group], original[group])[0, 1]) for name, group in run.groups.items()}


if __name__ == "__main__":
    runs, out = (Path(argument) for argument in sys.argv[1:])
    found = {name: Run(runs / f"{name}-0") for name in TARGETS}
    content = {name: {"iip": iip(run), "wu-iii": faithfulness(run)} for name, run in found.items()}
    out.write_text(json.dumps({"benchmark": "drawn", "seed": 0, "targets": content}, indent=1) + "\n", encoding="utf-8")
