"""The mirror test of two finished runs: one on a target, one on its mirror."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mia_bench.engine.paired import finished_result
from mia_bench.engine.plan import Plan, read_plan
from mia_bench.engine.scores import read_scores
from mia_bench.errors import NothingError, UsageError
from mia_bench.metrics.holm import holm
from mia_bench.metrics.mirror import Mirrored, mirror_test
from mia_bench.result import Result
from mia_bench.store import Store

ALPHA = 0.05
LEAST = 10  # images of each class: with fewer the bootstrap rejects too often


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
            or attacks with other definitions, parameters or noise.
        UnavailableError: A run is unfinished, or its scores cannot be read.
        NothingError: No attack is scored in both, or too few images are.
    """
    labels = _comparable(finished_result(run), finished_result(mirrored))
    members = _members(read_plan(Store(run)), read_plan(Store(mirrored)))
    ours, theirs = ({label: one.by_id for label, one in read_scores(folder).items()} for folder in (run, mirrored))
    n_resamples = max(2000, 100 * len(labels))  # so that Holm can reject, however many rows there are
    tests, counts = [], []
    for label in labels:
        ids = sorted(members.keys() & ours[label].keys() & theirs[label].keys())
        member = [members[i] for i in ids]
        if min(sum(member), len(ids) - sum(member)) < LEAST:
            why = f"{sum(member)} members and {len(ids) - sum(member)} non-members in both, {LEAST} of each needed"
            raise NothingError(f"mirror test of {label}", why, "audit more images on both")
        both = [[values[label][i] for i in ids] for values in (ours, theirs)]
        tests.append(mirror_test(both[0], both[1], member, n_resamples=n_resamples))
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


def _comparable(result: Result, other: Result) -> list[str]:
    """Labels of the attacks that both scored; checked to be the same attacks, asked with the same noise."""
    if result.sources or other.sources:
        raise UsageError("mirror", "imported scores: which target they are of is not known", "give measured runs")
    if result.target_fingerprint == other.target_fingerprint:
        why = f"{result.target} and {other.target} are one model"
        raise UsageError("mirror", why, "give a run on a target and one on its mirror")
    for field in ("noise", "independent_noise", "dtype", "latent"):
        if getattr(result, field) != getattr(other, field):
            raise UsageError("mirror", f"{field} differs between the runs", "run both with the same options")
    theirs = {row.label: row for row in other.rows if row.status == "ok" and not row.control}
    labels = [row.label for row in result.rows if row.status == "ok" and row.label in theirs]
    for row in result.rows:
        same = theirs.get(row.label, row)
        if (same.params, same.definition) != (row.params, row.definition):
            why = "its parameters differ between the runs" if same.params != row.params else "its definition differs"
            raise UsageError(f"attack {row.label}", why, "run both with the same options and version")
    if not labels:
        raise NothingError("mirror", "no attack is scored in both", "run the same attacks on both")
    return labels
