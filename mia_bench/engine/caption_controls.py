"""`run --controls`: attacks that read captions, again with one caption for all and with each other's captions.

They are runs like any other, in folders below the main one, and are compared with it sample by sample.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from mia_bench.engine.label import Label
from mia_bench.engine.plan import Plan
from mia_bench.engine.prepare import Prepared, RunOptions, prepare
from mia_bench.engine.select import Options, label_of
from mia_bench.errors import MiaBenchError, UsageError
from mia_bench.metrics import Gap
from mia_bench.plugins import Registry
from mia_bench.result import ASKED, MEMBERSHIP, CaptionControl, Result

CHOICES = ("neutral", "shuffled")
FOLDER = "controls"
ALIKE = ("target_fingerprint", "target_options", "reference_fingerprint", *ASKED, "shadow")
"""What a control and its run have in common; what the folder holds may be of an earlier run."""


def folders(run: Path) -> dict[str, Path]:
    """Where a run's controls are, by what they take for captions."""
    return {choice: run / FOLDER / choice for choice in CHOICES}


def reading(plan: Plan) -> list[str]:
    """Attacks of a run that read captions."""
    return [a.label for a in plan.attacks if a.caption != "unused" and not a.control] if plan.uses_captions else []


def controls_of(registry: Registry, options: RunOptions, main: Prepared) -> dict[str, RunOptions]:
    """What to run beside a run; nothing if none of its attacks reads captions.

    Raises:
        UsageError: The run itself takes other captions than the samples' own.
    """
    if not options.controls:
        return {}
    if options.captions != "true":
        why = f"controls are compared with the samples' own captions, and the run takes {options.captions}"
        raise UsageError("--controls", why, "leave out --captions")
    labels = reading(main.plan)
    if not labels:
        return {}
    given = {label_of(registry, key) if "@" in key or "[" in key else Label(key): key for key in options.options}
    read = [Label.parse(label) for label in labels]
    kept = {key: options.options[key] for label, key in given.items() if any(_of(label, one) for one in read)}
    same = replace(
        options,
        attacks=",".join(labels),
        keyword=None,
        options=kept,
        artifacts=0,
        positives="members",
        negatives=None,
        controls=False,
    )
    below = folders(main.store.folder)
    return {choice: replace(same, captions=choice, out=folder) for choice, folder in below.items()}


def planned_controls(registry: Registry, options: RunOptions, main: Prepared) -> list[Prepared]:
    """The same as plans, with nothing measured."""
    return [prepare(registry, one) for one in controls_of(registry, options, main).values()]


def run_controls(registry: Registry, options: RunOptions, main: Prepared) -> dict[str, str]:
    """Run them. One that cannot run costs nothing else.

    Returns:
        By choice, why it could not.
    """
    from mia_bench.engine.run import run_tasks

    failed, log = {}, logging.getLogger("mia_bench")
    wanted = controls_of(registry, options, main)
    if options.controls and not wanted:
        log.warning("no controls: no attack of the run reads captions")
    for choice, one in wanted.items():
        try:
            run_tasks(registry, one, main.target)
        except MiaBenchError as error:
            failed[choice] = error.why
            log.warning("no control with %s captions: %s", choice, error.why)
    return failed


def rescore_controls(registry: Registry, run: Path, options: Options) -> None:
    """Score controls again as their run is, so that both have the same parameters."""
    from mia_bench.engine.plan import read_plan
    from mia_bench.engine.run import rescore_tasks
    from mia_bench.store import Store

    for folder in folders(run).values():
        try:
            own = read_plan(Store(folder)).attacks
            names = {name for a in own for name in (a.name, a.label)}
            rescore_tasks(registry, folder, {key: values for key, values in options.items() if key in names})
        except MiaBenchError:  # not run, or of another version: what can be read is compared
            continue


def with_controls(run: Path, result: Result, failed: Mapping[str, str] | None = None) -> Result:
    """The result beside those controls that the run folder holds; of membership alone.

    Args:
        run: The folder, with its results.
        result: One of the results made from it.
        failed: By choice, why it could not be run.
    """
    from mia_bench.engine.side_by_side import side_by_side

    failed, done = dict(failed or {}), {}
    for choice, folder in folders(run).items():
        if choice in failed or not (folder / "results.json").exists():
            continue
        if why := _stale(result, folder):
            failed[choice] = why
        else:
            done[choice] = folder
    if result.task != MEMBERSHIP or not (done or failed):
        return result
    found = [CaptionControl(captions=choice, label="", reason=why) for choice, why in failed.items()]
    try:
        beside = side_by_side([run, *done.values()]) if done else None
    except MiaBenchError as error:
        found += [CaptionControl(captions=choice, label="", reason=error.why) for choice in done]
        return result.model_copy(update={"controls": tuple(found)})
    for row in beside.rows if beside else ():
        if row.rows[0] is None or row.rows[0].control:
            continue
        for choice, other, difference in zip(done, row.rows[1:], row.differences, strict=True):
            if other is None:
                continue
            gap = None
            if difference.value is not None and difference.low is not None and difference.high is not None:
                gap = Gap(
                    against=f"{choice} captions",
                    value=-difference.value,
                    low=-difference.high,
                    high=-difference.low,
                    p_value=difference.p_value,
                    adjusted=difference.adjusted,
                    method="paired-delong",
                )
            reason = difference.reason or difference.note or other.reason
            auc = other.evaluation.auc if other.evaluation else None
            found.append(
                CaptionControl(
                    captions=choice, label=row.label, n=difference.n, auc=auc, lost=gap, reason=reason or None
                )
            )
    return result.model_copy(update={"controls": tuple(found)})


def _stale(result: Result, folder: Path) -> str:
    """Why what a folder holds is no control of this result, or nothing."""
    from mia_bench.engine.run import read_result

    try:
        other = read_result(folder)
    except MiaBenchError as error:
        return error.why
    differing = [name.replace("_", " ") for name in ALIKE if getattr(result, name) != getattr(other, name)]
    return f"left by an earlier run, of other {', '.join(differing)}; run again with --controls" if differing else ""


def _of(option: Label, row: Label) -> bool:
    """Whether an option is of a row, or of all rows of its attack."""
    return option.name == row.name and (not option.preset or option.preset == row.preset)
