"""Whether a run and a baseline can be held against each other at all."""

from __future__ import annotations

from mia_bench.engine.paired import FinishedRun, why_other_content, why_other_samples
from mia_bench.engine.plan import Plan
from mia_bench.imported import UNKNOWN_TARGET
from mia_bench.result import ASKED, Result

ALIKE = (*ASKED, "captions", "measurement_version")  # of a plan


def why_incomparable(before: FinishedRun, after: FinishedRun) -> str:
    """Why two runs answer neither question of the gate, or nothing."""
    return _why_measured_otherwise(before.plan, after.plan) or _why_other_calibration(before.result, after.result)


def _why_measured_otherwise(before: Plan, after: Plan) -> str:
    """Why the measurements of two plans say nothing of each other, or nothing."""
    if before.sources and after.sources and (why := _why_other_import(before, after)):
        return why
    for name in ALIKE:
        if getattr(before, name) != getattr(after, name):
            called = "way of measuring" if name == "measurement_version" else name.replace("_", " ")
            return f"other {called}: {getattr(before, name)} in the baseline, {getattr(after, name)} now"
    sides = [plan.target_options.get("resolution") for plan in (before, after)]
    if sides[0] != sides[1]:
        return f"other resolution: {sides[0] or 'the default'} in the baseline, {sides[1] or 'the default'} now"
    references = before.reference_fingerprint, after.reference_fingerprint
    if None not in references and references[0] != references[1]:
        return f"other reference model: {before.reference} in the baseline, {after.reference} now"
    if why := why_other_samples(before, after) or why_other_content(before, after):
        return why
    if _samples(before) != _samples(after):
        return "other samples beside the audited ones (calibration set, unknown membership, or groups)"
    return ""


def _why_other_import(before: Plan, after: Plan) -> str:
    """Why imported scores are not known to be of one target and of the same samples, by their names, or nothing."""
    if UNKNOWN_TARGET in (before.target, after.target):
        return "imported scores of a target that nobody named: import both with the same --target and --dataset"
    for name in ("target", "dataset"):
        if getattr(before, name) != getattr(after, name):
            sides = f"{getattr(before, name)} in the baseline, {getattr(after, name)} now"
            return f"imported scores of another {name}: {sides}"
    return ""


def _why_other_calibration(before: Result, after: Result) -> str:
    """Why attacks were fitted on other samples, or nothing; of the results, since `score` may choose anew."""
    named = {"run", "target", "dataset"}  # one run may be called in several ways
    one, other = (result.shadow.model_dump(exclude=named) if result.shadow else None for result in (before, after))
    if one == other:
        return ""
    on = [f"run {r.shadow.run} on {r.shadow.target}" if r.shadow else "the run's own set" for r in (before, after)]
    return f"other calibration: {on[0]} in the baseline, {on[1]} now"


def _samples(plan: Plan) -> set[tuple[object, ...]]:
    s = plan.samples
    return set(zip(s.id, s.split, s.member, s.group, strict=True))
