"""The mirror test of two finished runs: one on a target, one on its mirror."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mia_bench.engine.plan import Plan
from mia_bench.engine.run import read_plan, read_result
from mia_bench.errors import NothingError, UnavailableError, UsageError, brief
from mia_bench.metrics.mirror import Mirrored, holm, mirror_test
from mia_bench.result import MEMBERSHIP, Result
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
    labels = _comparable(_finished(run), _finished(mirrored))
    members = _members(read_plan(Store(run)), read_plan(Store(mirrored)))
    ours, theirs = _scores(run), _scores(mirrored)
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


def _finished(folder: Path) -> Result:
    result = read_result(folder)
    if result.task != MEMBERSHIP:
        why = f"its result compares {' with '.join(result.task.names)}"
        raise UsageError(f"run {folder}", why, f"`mia-bench score {folder}` writes that on membership")
    if result.unfinished:
        raise UnavailableError(f"run {folder}", f"unfinished: {result.unfinished}", "finish it first")
    return result


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


def _scores(folder: Path) -> Mapping[str, Mapping[str, float]]:
    """Label -> sample -> score."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "scores.parquet"
    try:
        table = pq.read_table(path, columns=["attack", "preset", "sample_id", "score"]).to_pydict()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UnavailableError(
            f"run {folder}", f"its scores cannot be read: {brief(error)}", f"`mia-bench score {folder}`"
        ) from error
    found: dict[str, dict[str, float]] = {}
    for attack, preset, sample, score in zip(*table.values(), strict=True):
        found.setdefault(f"{attack}@{preset}" if preset else attack, {})[sample] = score
    return found
