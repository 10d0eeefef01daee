"""Finished runs whose scores can be laid beside each other, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mia_bench.engine.plan import Plan, read_plan
from mia_bench.engine.run import read_result
from mia_bench.engine.scores import StoredScores, read_scores
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.result import MEMBERSHIP, Result
from mia_bench.store import Store


@dataclass(frozen=True)
class FinishedRun:
    """A run folder that is done: its result, its plan, and label -> scores."""

    folder: Path
    result: Result
    plan: Plan
    scores: Mapping[str, StoredScores]


def finished_result(folder: Path) -> Result:
    """The result of a run that is done.

    Raises:
        UnavailableError: It is missing, damaged or unfinished.
        UsageError: It compares other classes than members with non-members.
    """
    result = read_result(folder)
    if result.task != MEMBERSHIP:
        why = f"its result compares {' with '.join(result.task.names)}"
        raise UsageError(f"run {folder}", why, f"`mia-bench score {folder}` writes that on membership")
    if result.unfinished:
        raise UnavailableError(f"run {folder}", f"unfinished: {result.unfinished}", "finish it first")
    return result


def finished_run(folder: Path) -> FinishedRun:
    """All that can be compared of a run folder.

    Raises:
        UnavailableError: A part is missing, damaged or unfinished.
        UsageError: As `finished_result`, or it is a file.
    """
    result = finished_result(folder)
    if not folder.is_dir():
        fix = f"give a run folder, or a baseline: `mia-bench compare {folder.with_suffix('')} RUN --update` records one"
        raise UsageError(f"file {folder}", "a results file holds no scores", fix)
    slim = not any(Store(folder).shards.glob("*.parquet"))
    again = f"restore the baseline, or record it again: `mia-bench compare {folder} RUN --update`"
    try:
        run = FinishedRun(folder, result, read_plan(Store(folder)), read_scores(folder))
    except UnavailableError as error:
        raise UnavailableError(error.what, error.why, again if slim else error.fix) from error
    if why := _why_untied(run):
        raise UnavailableError(f"run {folder}", why, again if slim else f"`mia-bench score {folder}`")
    return run


def _why_untied(run: FinishedRun) -> str:
    """Why plan, scores and results are not of one run, or nothing."""
    rows = {row.label: row for row in run.result.rows}
    for label in dict.fromkeys([*(a.label for a in run.plan.attacks), *run.scores]):
        if label not in rows:
            return f"its results.json has no row of {label}"
    for label, row in rows.items():
        if (row.status == "ok") != (label in run.scores):
            has, lacks = ("results", "scores") if row.status == "ok" else ("scores", "results")
            return f"its {has} have {label}, its {lacks} have not"
    planned = {a.label for a in run.plan.attacks}
    return next((f"its results.json has {label}, its plan has not" for label in rows if label not in planned), "")


def known(plan: Plan) -> dict[str, bool]:
    """Audit sample -> whether it is a member, where that is known."""
    samples = zip(plan.samples.id, plan.samples.member, plan.samples.split, strict=True)
    return {i: member for i, member, split in samples if split == "audit" and member is not None}


def why_other_samples(first: Plan, other: Plan) -> str:
    """Why two runs are not of the same audit samples with the same labels, or nothing."""
    ours, theirs = known(first), known(other)
    shared = ours.keys() & theirs.keys()
    if shared != ours.keys() or shared != theirs.keys():
        return f"other samples: {len(shared)} in both, of {len(ours)} and {len(theirs)}"
    if swapped := sorted(i for i in shared if ours[i] != theirs[i]):
        return f"other members: {len(swapped)} samples are members of one target only, first {swapped[0]!r}"
    return ""


def why_other_content(first: Plan, other: Plan) -> str:
    """Why images or captions are not the same, or nothing."""
    digests = dict(other.samples.pairs)
    changed = [i for i, digest in first.samples.pairs if digests.get(i, digest) != digest]
    return f"image or caption of {changed[0]!r} differs" if changed else ""
