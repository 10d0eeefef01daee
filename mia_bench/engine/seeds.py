"""One run under several noise seeds: how much of a number is the noise, apart from how much is the choice of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from mia_bench.errors import UsageError
from mia_bench.metrics import Metric
from mia_bench.plugins import Registry
from mia_bench.result import Result, Row

if TYPE_CHECKING:
    from pathlib import Path

    from mia_bench.engine.prepare import RunOptions

METRICS = ("auc", "tpr_at_1", "asr_oracle")
SAME = (
    "task",
    "dataset_revision",
    "target_fingerprint",
    "reference_fingerprint",
    "samples_hash",
    "n_members",
    "n_nonmembers",
    "dtype",
    "latent",
    "independent_noise",
    "captions",
    "shadow",
)


@dataclass(frozen=True)
class Spread:
    """One metric of one attack over noise seeds.

    Attributes:
        values: One for each seed that has it.
        mean: Of them; None where there are none.
        sd: Standard deviation over seeds; None with fewer than two.
        low: The smallest.
        high: The largest.
        images: The metric of the lowest seed, with its interval over images.
    """

    values: tuple[float, ...]
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    images: Metric

    @classmethod
    def of(cls, metrics: Sequence[Metric]) -> Spread:
        values = tuple(m.value for m in metrics if m.value is not None)
        known = {"mean": mean(values), "low": min(values), "high": max(values)} if values else {}
        ends = dict.fromkeys(("mean", "low", "high")) | known
        return cls(values, sd=stdev(values) if len(values) > 1 else None, images=metrics[0], **ends)


@dataclass(frozen=True)
class SeedRow:
    """One attack or control.

    Attributes:
        label: Of the row.
        control: Whether it is a control.
        fixed: Whether all seeds give the very same numbers: it draws no noise, so there is no spread to speak of.
        seeds: Those that scored it.
        metrics: Name -> spread; empty if no seed did.
        reason: Why not all seeds scored it.
    """

    label: str
    control: bool
    fixed: bool
    seeds: tuple[int, ...]
    metrics: dict[str, Spread]
    reason: str = ""


@dataclass(frozen=True)
class OverSeeds:
    """Runs that differ only in the seed of their noise, by rising seed."""

    results: tuple[Result, ...]
    rows: tuple[SeedRow, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(map(_seed, self.results))

    def to_json(self) -> dict[str, Any]:
        rows = []
        for row in self.rows:
            spreads = {
                name: {**asdict(replace(spread, images=None)), "images": spread.images.model_dump(mode="json")}  # type: ignore[arg-type]
                for name, spread in row.metrics.items()
            }
            rows.append({**asdict(replace(row, metrics={})), "metrics": spreads})
        return {"seeds": list(self.seeds), "rows": rows}


def over_seeds(results: Sequence[Result]) -> OverSeeds:
    """Each attack's metrics over seeds, in the order of the lowest seed's rows."""
    ordered = sorted(results, key=_seed)
    labels = dict.fromkeys(row.label for result in ordered for row in result.rows)
    return OverSeeds(tuple(ordered), tuple(_row(label, ordered) for label in labels))


def _row(label: str, results: Sequence[Result]) -> SeedRow:
    own = [(_seed(result), row) for result in results for row in result.rows if row.label == label]
    scored = [(seed, row.evaluation) for seed, row in own if row.evaluation]
    # With their thresholds, which are scores: equal where all scores are, and hardly otherwise.
    fixed = len(scored) > 1 and all(one == scored[0][1] for _, one in scored)
    spreads = {name: Spread.of([getattr(e, name) for _, e in scored]) for name in METRICS} if scored else {}
    reasons = dict.fromkeys(f"seed {seed}: {row.reason}" for seed, row in own if row.reason)
    return SeedRow(label, own[0][1].control, fixed, tuple(seed for seed, _ in scored), spreads, "; ".join(reasons))


def apart(first: Result, other: Result) -> list[str]:
    """What differs between two results beside the seed; `other` may lack rows of `first`."""
    differing = [field for field in SAME if getattr(first, field) != getattr(other, field)]
    differing += sorted(label for label, row in rows_of(other).items() if rows_of(first).get(label) != row)
    if any(result.noise.startswith("recorded") for result in (first, other)):
        differing.append("recorded noise")
    return differing


def _seed(result: Result) -> int:
    return result.seed or 0  # an imported result, whose seed is unknown, is not taken for one of several


def rows_of(result: Result) -> dict[str, object]:
    """What must be equal in rows of several seeds."""
    return {row.label: _kind(row) for row in result.rows}


def _kind(row: Row) -> tuple[object, ...]:
    return row.params, row.definition, row.status, row.n


def only_seeds_differ(results: Sequence[Result]) -> bool:
    """Whether two or more finished runs are one run under several seeds, each once."""
    if any(result.seed is None for result in results):  # imported: their noise is unknown
        return False
    first = min(results, key=_seed)
    named = {(result.dataset, result.target) for result in results}
    once = len({result.seed for result in results}) == len(results) > 1
    finished = not any(result.unfinished for result in results)
    return once and finished and len(named) == 1 and not any(apart(first, r) for r in results if r is not first)


def run_seeds(registry: Registry, options: RunOptions, count: int) -> tuple[list[tuple[Result, ...]], list[Path]]:
    """A run for each of the seeds `options.seed`, ..., `options.seed + count - 1`; the target is loaded once.

    Each has a folder of its own, `FOLDER/seedN` where one is given, and is resumed like any other.

    Returns:
        The results of each, as of `run_tasks`, and the folders.

    Raises:
        UsageError: The noise is recorded, or controls are asked for.
        MiaBenchError: As `run_tasks`; finished seeds stay.
    """
    from mia_bench.engine.prepare import prepare
    from mia_bench.engine.run import run_prepared

    if options.noise:
        raise UsageError("--seeds", "recorded noise is the same under any seed", "leave out --noise or --seeds")
    if options.controls:
        raise UsageError("--seeds", "--controls are run beside one seed", "run one of the seeds with --controls")
    found, folders, target = [], [], None
    for seed in range(options.seed, options.seed + count):
        own = replace(options, seed=seed, out=options.out / f"seed{seed}" if options.out else None)
        prepared = prepare(registry, own, fetch=True, target=target)
        found.append(run_prepared(registry, prepared, own))
        folders.append(prepared.store.folder)
        target = prepared.target
    return found, folders
