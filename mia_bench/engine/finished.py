"""All that is left of a run: result, plan, scores, saved pictures, and the samples where they can still be opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mia_bench.dataset import Sample
from mia_bench.engine.artifacts import INDEX
from mia_bench.engine.audited import reopened
from mia_bench.engine.plan import Plan, read_plan
from mia_bench.engine.run import read_result
from mia_bench.engine.scores import StoredScores, read_scores
from mia_bench.errors import MiaBenchError, brief
from mia_bench.plugins import Registry
from mia_bench.result import Result
from mia_bench.store import ARTIFACTS, Store


@dataclass(frozen=True)
class Explained:
    """Pictures that an attack saved of one sample: title -> file within the run folder."""

    attack: str
    rank: str
    sample: str
    score: float
    member: bool | None
    pictures: Mapping[str, Path]


@dataclass(frozen=True)
class Finished:
    """A run that can be shown.

    Attributes:
        result: Its result.
        folder: The run folder; None where the result is all there is.
        plan: Its plan, if the folder has it.
        scores: Label -> scores.
        explained: What `--artifacts` saved.
        samples: Id -> sample that is still what it was; None where the dataset could not be opened.
        gaps: What could not be had, and why.
    """

    result: Result
    folder: Path | None = None
    plan: Plan | None = None
    scores: Mapping[str, StoredScores] = field(default_factory=dict)
    explained: tuple[Explained, ...] = ()
    samples: Mapping[str, Sample] | None = None
    gaps: tuple[str, ...] = ()


def read_finished(path: Path, registry: Registry, with_samples: bool = True) -> Finished:
    """Read a run folder or a results file; what is missing beside the result is said in `gaps`.

    Raises:
        UnavailableError: There is no result, or it cannot be read.
    """
    result = read_result(path)
    if not path.is_dir():
        gap = "a results file holds no scores, so no bands, distributions or samples; a run folder has them"
        return Finished(result, gaps=(gap,))
    gaps: list[str] = []
    plan: Plan | None = None
    scores: Mapping[str, StoredScores] = {}
    try:
        plan, scores = read_plan(Store(path)), read_scores(path)
    except MiaBenchError as error:
        gaps.append(f"no bands, distributions or samples: {error.why}")
    samples: Mapping[str, Sample] | None = None
    if with_samples and plan and scores:
        try:
            samples = _samples(plan, registry)
        except Exception as error:  # of a plugin, too: the page is of a run that is done
            why = error.why or error.what if isinstance(error, MiaBenchError) else brief(error)
            opened = f"dataset {plan.dataset} cannot be opened: {why}"
            unnamed = "scores were imported, with no --dataset that can be opened and has their ids"
            gaps.append(f"no images of the samples: {unnamed if plan.sources else opened}")
    return Finished(result, path, plan, scores, tuple(_explained(path, gaps)), samples, tuple(gaps))


def _samples(plan: Plan, registry: Registry) -> dict[str, Sample]:
    """Those of the plan that are still what they were."""
    digests = dict(plan.samples.pairs)
    found = {s.id: s for s in reopened(registry, plan.dataset).samples() if s.id in digests}
    if plan.captions != "true":  # attacks read other captions, which are part of a digest
        return found
    return {i: s for i, s in found.items() if s.digest == digests[i]}


def _explained(folder: Path, gaps: list[str]) -> list[Explained]:
    """What the index lists, as far as it is well formed and within the folder of pictures."""
    store, home = Store(folder), (folder / ARTIFACTS).resolve()
    if not (folder / ARTIFACTS / INDEX).exists():
        return []
    found = []
    try:
        for row in store.read_json(f"{ARTIFACTS}/{INDEX}")["rows"]:
            paths = {str(title): folder / str(path) for title, path in row["pictures"].items()}
            inside = {t: p for t, p in paths.items() if p.resolve().is_relative_to(home) and p.is_file()}
            about = (str(row["attack"]), str(row["rank"]), str(row["sample"]), float(row["score"]))
            found.append(Explained(*about, row["member"] if isinstance(row["member"], bool) else None, inside))
    except (MiaBenchError, KeyError, TypeError, ValueError, AttributeError) as error:
        gaps.append(f"saved pictures cannot be read: {brief(error)}")
    return found
