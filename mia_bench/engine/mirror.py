"""The mirror test of two finished runs: one on a target, one on its mirror."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mia_bench.engine.plan import Plan
from mia_bench.engine.run import read_plan
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.metrics.mirror import Mirrored, holm, mirror_test
from mia_bench.store import Store

ALPHA = 0.05


@dataclass(frozen=True)
class MirrorRow:
    """One attack: its test, the p-value adjusted over all rows, and whether the deviation is other than 0."""

    label: str
    n: int
    test: Mirrored
    adjusted: float

    @property
    def passes(self) -> bool:
        return self.adjusted >= ALPHA

    def to_json(self) -> dict[str, Any]:
        return {"label": self.label, "n": self.n, **asdict(self.test), "holm": self.adjusted, "passes": self.passes}


def mirror(run: Path, mirrored: Path) -> list[MirrorRow]:
    """Test every attack that both runs scored, on the audit images that both scored; widest deviation first.

    Raises:
        UsageError: The runs are no mirrors of each other: other images, labels that are not swapped, equal targets,
            or attacks with other parameters.
        UnavailableError: A run is unfinished.
    """
    plans = [read_plan(Store(folder)) for folder in (run, mirrored)]
    members = _members(*plans)
    _same_attacks(*plans)
    ours, theirs = (_scores(folder, plan) for folder, plan in zip((run, mirrored), plans, strict=True))
    labels = [a.label for a in plans[0].attacks if not a.control and a.label in ours and a.label in theirs]
    if not labels:
        raise UsageError(f"mirror {run} {mirrored}", "no attack is scored in both", "run the same attacks on both")
    tests, counts = [], []
    for label in labels:
        ids = sorted(members.keys() & ours[label].keys() & theirs[label].keys())
        both = [[values[label][i] for i in ids] for values in (ours, theirs)]
        tests.append(mirror_test(both[0], both[1], [members[i] for i in ids]))
        counts.append(len(ids))
    adjusted = holm([test.p_value for test in tests])
    rows = [MirrorRow(*row) for row in zip(labels, counts, tests, adjusted, strict=True)]
    return sorted(rows, key=lambda row: (row.adjusted, -abs(row.test.deviation)))


def _members(plan: Plan, other: Plan) -> dict[str, bool]:
    """Audit sample -> member of the first target; checked to be the swapped labels of the second."""
    ours, theirs = (
        {i: m for i, m, s in zip(p.samples.id, p.samples.member, p.samples.split, strict=True) if s == "audit"}
        for p in (plan, other)
    )
    common = [i for i in ours if i in theirs]
    if not common:
        raise UsageError(f"{plan.dataset} and {other.dataset}", "the runs share no audit image", "run both on one set")
    if equal := [i for i in common if ours[i] is None or theirs[i] is None or ours[i] == theirs[i]]:
        why = f"membership of {equal[0]!r} is not swapped between {plan.target} and {other.target}"
        raise UsageError("mirror", why, "give a run on a target and one on its mirror, each with its own members")
    digests = dict(other.samples.pairs)
    if changed := [i for i, digest in plan.samples.pairs if digests.get(i, digest) != digest]:
        raise UsageError("mirror", f"image or caption {changed[0]!r} differs between the runs", "run both on one set")
    return {i: bool(ours[i]) for i in common}


def _same_attacks(plan: Plan, other: Plan) -> None:
    params = {a.label: a.params for a in other.attacks}
    for attack in plan.attacks:
        if params.get(attack.label, attack.params) != attack.params:
            why = "its parameters differ between the runs"
            raise UsageError(f"attack {attack.label}", why, "run both with the same options")
    if (plan.noise, plan.dtype, plan.latent) != (other.noise, other.dtype, other.latent):
        raise UsageError("mirror", "seed, dtype or latent policy differ", "run both with the same options")


def _scores(folder: Path, plan: Plan) -> Mapping[str, Mapping[str, float]]:
    """Label -> sample -> score."""
    import pyarrow.parquet as pq

    path = folder / "scores.parquet"
    try:
        table = pq.read_table(path, columns=["attack", "preset", "sample_id", "score"]).to_pydict()
    except OSError as error:
        raise UnavailableError(f"run {folder}", "it has no scores", f"`mia-bench score {folder}`") from error
    found: dict[str, dict[str, float]] = {}
    for attack, preset, sample, score in zip(*table.values(), strict=True):
        found.setdefault(f"{attack}@{preset}" if preset else attack, {})[sample] = score
    return found
