"""How often an audit is wrong, and how often it finds members, on the embedded targets.

python benchmarks/audit/power.py RUNS OUT.json [DRAWS]

RUNS holds a run folder for each target, made by `mia-bench run --target TARGET --attacks clid,pia,sima,loss,pfami --out
RUNS/TARGET`; what is missing is run. False positives: sets of audited non-members, drawn at random, against the other
ones, by the test of sets; one image at a time, by conformal p-values after Holm over the attacks, and by one attack.
Power: sets of audited members, and each of them, against all audited non-members. A binomial test asks of each
false-positive rate whether it is the nominal one; of one image, whether it is above, since few non-members and Holm
make its p-values conservative.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from threadpoolctl import threadpool_limits

from mia_bench.engine.plan import read_plan
from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.provenance import environment
from mia_bench.engine.run import run
from mia_bench.engine.scores import read_scores
from mia_bench.metrics.conformal import conformal_p
from mia_bench.metrics.holm import holm
from mia_bench.metrics.set_test import Rejections, p_values
from mia_bench.plugins import Registry
from mia_bench.result import MEMBERSHIP
from mia_bench.store import Store

TARGETS = ("emoji-overtrain", "emoji-realworld")
ATTACKS = ("clid", "pia", "sima", "loss", "pfami")
SIZES = (10, 30, 100)
LEVELS = (0.05, 0.01)
PERMUTATIONS = 199  # both levels are whole numbers of 1 / 200, so that the nominal rate can be met exactly
ONE_IMAGE = {"one_image": len(ATTACKS), "one_image_one_attack": 1}  # how many attacks look at it
Table = NDArray[np.float64]


def tables(folder: Path, target: str) -> tuple[Table, Table]:
    """Scores of audited members and non-members, (N, attacks) each."""
    if not (folder / "scores.parquet").exists():
        run(Registry.load(), RunOptions(attacks=",".join(ATTACKS), target=target, out=folder))
    samples = read_plan(Store(folder)).samples
    scores = {label: found.by_id for label, found in read_scores(folder).items()}
    sides = samples.sides(MEMBERSHIP)
    found = [[[scores[a][samples.id[i]] for a in ATTACKS] for i in np.flatnonzero(side)] for side in sides]
    return np.array(found[0]), np.array(found[1])


def one_image(image: Table, nonmembers: Table) -> float:
    """Smallest p-value after Holm of one image, (attacks,), among non-members (N, attacks)."""
    columns = zip(image, nonmembers.T, strict=True)
    return min(holm([float(conformal_p([score], known)[0]) for score, known in columns]))


def single(nonmembers: Table, n: int, draws: int, seed: int) -> Table:
    """That of one non-member among n others, float64 (draws,)."""
    source, found = np.random.default_rng(seed), np.empty(draws)
    for i in range(draws):
        one, *others = source.choice(len(nonmembers), n + 1, replace=False)
        found[i] = one_image(nonmembers[one], nonmembers[others])
    return found


def rates(n: int, found: Table, alternative: str = "") -> list[dict[str, Any]]:
    """The share of rejections at each level, and whether it is nominal if that is asked."""
    rows = []
    for alpha in LEVELS:
        one = Rejections.of(n, int((found <= alpha).sum()), len(found))
        row: dict[str, Any] = {"n": n, "alpha": alpha, "rejected": one.rejected, "draws": one.draws}
        row |= {"share": one.rejected / one.draws, "low": one.low, "high": one.high}
        if alternative:
            row["binomial_p"] = float(binomtest(one.rejected, one.draws, alpha, alternative=alternative).pvalue)
        rows.append(row)
    return rows


def measure(members: Table, nonmembers: Table, draws: int, seed: int) -> dict[str, Any]:
    """All rates on one target; the first attack is the one that is chosen beforehand."""
    found: dict[str, Any] = {
        name: [] for name in ("false_positives", "power", *ONE_IMAGE, *(f"{o}_power" for o in ONE_IMAGE))
    }
    for n in SIZES:
        own = 1000 * seed + n
        null = p_values(nonmembers, None, n, draws=draws, permutations=PERMUTATIONS, seed=own)
        found["false_positives"] += rates(n, null, "two-sided")
        power = p_values(members, nonmembers, n, draws=draws // 4, permutations=PERMUTATIONS, seed=own)
        found["power"] += rates(n, power)
        for name, width in ONE_IMAGE.items():
            found[name] += rates(n, single(nonmembers[:, :width], n, draws, own), "greater")
    for name, width in ONE_IMAGE.items():
        each = [one_image(image, nonmembers[:, :width]) for image in members[:, :width]]
        found[f"{name}_power"] = rates(len(nonmembers), np.array(each))
    return found


def main(runs: Path, out: Path, draws: int = 2000) -> None:
    content: dict[str, Any] = {"benchmark": "audit", "environment": environment("cpu"), "attacks": ATTACKS}
    content["permutations"] = PERMUTATIONS
    with threadpool_limits(1):
        content["targets"] = {t: measure(*tables(runs / t, t), draws, i) for i, t in enumerate(TARGETS)}
    every = [row for found in content["targets"].values() for rows in found.values() for row in rows]
    every = [row for row in every if "binomial_p" in row]
    for row, adjusted in zip(every, holm([row["binomial_p"] for row in every]), strict=True):
        row["binomial_holm"] = adjusted
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
