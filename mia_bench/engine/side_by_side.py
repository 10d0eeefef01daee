"""Finished runs beside the first of them: what each attack gains or loses, paired where the samples are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mia_bench.engine.paired import known, why_other_content, why_other_samples
from mia_bench.engine.plan import Plan, read_plan
from mia_bench.engine.run import read_result
from mia_bench.engine.scores import StoredScores, read_scores
from mia_bench.errors import MiaBenchError, NothingError
from mia_bench.metrics import paired_delong
from mia_bench.metrics.holm import holm
from mia_bench.result import Result, Row
from mia_bench.store import Store


@dataclass(frozen=True)
class Difference:
    """AUC of one attack in a later run minus that in the first, or why there is none.

    Attributes:
        n: Audit samples that both scored.
        value: The difference, -1 to 1; `low` and `high` are its 95 % interval (paired DeLong).
        p_value: Two-sided, of no difference, not adjusted.
        adjusted: The same, adjusted for all differences of the comparison (Holm).
        note: What else differs between the two.
        reason: Why there is no difference, or no interval of it.
    """

    n: int = 0
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    adjusted: float | None = None
    note: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Compared:
    """One attack or control: its row in each run (None where a run lacks it), and each later run against the first."""

    label: str
    rows: tuple[Row | None, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class SideBySide:
    """Runs beside each other.

    Attributes:
        folders: As they were given.
        results: Their results.
        rows: Every attack and control of any.
        unpaired: For each later run, why it cannot be paired with the first; empty where it can.
    """

    folders: tuple[Path, ...]
    results: tuple[Result, ...]
    rows: tuple[Compared, ...]
    unpaired: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": [
                {"run": str(f), **r.model_dump(mode="json", exclude={"rows", "failures", "environments", "cost"})}
                for f, r in zip(self.folders, self.results, strict=True)
            ],
            "unpaired": list(self.unpaired),
            "rows": [
                {
                    "label": row.label,
                    "auc": [
                        r.evaluation.auc.model_dump(mode="json") if r is not None and r.evaluation else None
                        for r in row.rows
                    ],
                    "against_first": [asdict(d) for d in row.differences],
                }
                for row in self.rows
            ],
        }


@dataclass(frozen=True)
class _Run:
    result: Result
    plan: Plan | None
    scores: Mapping[str, StoredScores]
    why: str  # there are no plan and scores

    @classmethod
    def read(cls, path: Path) -> _Run:
        result = read_result(path)
        if not path.is_dir():
            return cls(result, None, {}, "a results file holds no scores; give the run folder")
        try:
            return cls(result, read_plan(Store(path)), read_scores(path), "")
        except MiaBenchError as error:
            return cls(result, None, {}, error.why)


def side_by_side(paths: Sequence[Path]) -> SideBySide:
    """Compare runs with the first of them.

    Args:
        paths: Two or more run folders; results files can be shown, but not paired.

    Raises:
        UnavailableError: A run cannot be read, or is unfinished.
        NothingError: No attack is in any two of them.
    """
    runs = [_Run.read(path) for path in paths]
    first, *others = runs
    unpaired = tuple(_why_unpaired(first, other) for other in others)
    tables = [{row.label: row for row in run.result.rows} for run in runs]
    labels = list(dict.fromkeys(label for table in tables for label in table))
    if all(sum(label in table for table in tables) < 2 for label in labels):
        raise NothingError("report", "no attack is in two of the runs", "run the same attacks in both")
    rows = []
    for label in labels:
        own = tuple(table.get(label) for table in tables)
        control = any(row is not None and row.control for row in own)  # it never asks the target, so is no test of it
        differences = [
            Difference(reason=why or "control") if why or control else _difference(label, first, other)
            for other, why in zip(others, unpaired, strict=True)
        ]
        rows.append(Compared(label, own, tuple(differences)))
    return SideBySide(tuple(paths), tuple(run.result for run in runs), _adjusted(rows), unpaired)


def _why_unpaired(first: _Run, other: _Run) -> str:
    """Why two runs are not of the same samples, or nothing."""
    for run in (first, other):
        if run.why:
            return run.why
    if first.result.task != other.result.task:
        return "they compare different classes"
    assert first.plan and other.plan, "they have scores"
    if why := why_other_samples(first.plan, other.plan):
        return why
    if first.plan.sources or other.plan.sources:  # whose images nobody here has seen
        named = first.plan.dataset == other.plan.dataset
        return (
            "" if named else "equal ids need not be equal samples; if they are, import with the other run's --dataset"
        )
    if first.result.captions == other.result.captions:  # else they differ on purpose, and so do the digests
        return why_other_content(first.plan, other.plan)
    same = ("dataset", "dataset_revision")
    differing = [name for name in same if getattr(first.result, name) != getattr(other.result, name)]
    return f"other captions, and {differing[0]} differs" if differing else ""


def _difference(label: str, first: _Run, other: _Run) -> Difference:
    if label not in first.scores or label not in other.scores:
        return Difference(reason="not scored in both")
    assert first.plan
    ours, theirs = first.scores[label].by_id, other.scores[label].by_id
    members = {i: member for i, member in known(first.plan).items() if i in ours and i in theirs}
    found = paired_delong([theirs[i] for i in members], [ours[i] for i in members], [*members.values()])
    gap = found.difference
    before, after = (next(r for r in run.result.rows if r.label == label) for run in (first, other))
    note = "other parameters" if before.params != after.params else ""
    if not note and before.definition != after.definition:
        note = "other definition"
    return Difference(len(members), gap.value, gap.low, gap.high, found.p_value, note=note, reason=gap.reason or "")


def _adjusted(rows: Sequence[Compared]) -> tuple[Compared, ...]:
    tested = [d.p_value for row in rows for d in row.differences if d.p_value is not None]
    adjusted = iter(holm(tested))
    return tuple(
        replace(
            row,
            differences=tuple(d if d.p_value is None else replace(d, adjusted=next(adjusted)) for d in row.differences),
        )
        for row in rows
    )
