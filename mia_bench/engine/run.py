"""One run from options to a result: plan, measure what is missing, score."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.attack import Attack
from mia_bench.engine.blame import blaming
from mia_bench.engine.events import RunFinished, RunStarted
from mia_bench.engine.plan import Plan, changed
from mia_bench.engine.prepare import Prepared, RunOptions, instances, open_device, prepare, stored_params
from mia_bench.engine.select import Options, make_params
from mia_bench.engine.tasks import tasks_of
from mia_bench.errors import UnavailableError, UsageError, brief
from mia_bench.plugins import Registry
from mia_bench.result import Result
from mia_bench.store import ARTIFACTS, Store
from mia_bench.target import Target

if TYPE_CHECKING:
    from mia_bench.engine.estimate import Estimate

MAX_THREADS = 16  # by default: each thread holds the activations of one network call


def run(registry: Registry, options: RunOptions) -> Result:
    """As `run_tasks`, for the first task; of memorised images that is against other members."""
    return run_tasks(registry, options)[0]


def run_tasks(registry: Registry, options: RunOptions) -> tuple[Result, ...]:
    """Measure what the run folder does not hold yet, then score everything.

    Returns:
        A result for each task that the options ask for. What the folder keeps is of membership, always.

    Raises:
        MiaBenchError: The run cannot start or go on; what was measured stays in the folder.
    """
    prepared = prepare(registry, options, fetch=True)
    with prepared.store.locked():
        from mia_bench.engine.measure import Measurer, pending
        from mia_bench.engine.score import score_run

        prepared.store.set_aside_damaged()
        work = pending(prepared.plan, prepared.samples, prepared.store)
        # Before anything is written: a target that cannot be opened costs no earlier result.
        asking = {spec for group in work for attack in group.attacks for spec in attack.encoders}
        size = _open_target(prepared, options, asking) if work else 0
        prepared.store.write_json("run.json", prepared.plan.model_dump(mode="json"))
        # Earlier scores may be of another plan; a run that is stopped must not leave them as its result.
        prepared.store.remove("results.json", "scores.parquet", ARTIFACTS)
        outcome = None
        if work:
            from mia_bench.engine.provenance import environment

            measurer = Measurer(
                prepared.plan,
                prepared.attacks,
                prepared.target,
                prepared.noise,
                prepared.store,
                registry,
                environment(prepared.target.device),
                options.fail_fast,
            )
            outcome = measurer.run(work, size)
        else:
            stored = len(prepared.plan.samples.id)
            registry.run_started(RunStarted((), 0, stored, 0, str(prepared.store.folder)))
            registry.run_finished(RunFinished(0, 0.0))
        prepared.store.compact()
        results = score_run(prepared.plan, prepared.attacks, prepared.store, outcome, tasks=prepared.tasks)
        if options.artifacts:
            _explain(prepared, options)
        return results


def foresee(prepared: Prepared, options: RunOptions) -> Estimate:
    """What is left of a run, and how long it may take; loads the target and stores nothing.

    Raises:
        MiaBenchError: The target cannot be loaded or asked.
    """
    from mia_bench.engine.estimate import estimate
    from mia_bench.engine.measure import pending

    work = pending(prepared.plan, prepared.samples, prepared.store)
    return estimate(work, prepared.target, _open_target(prepared, options, ()))


def _open_target(prepared: Prepared, options: RunOptions, encoders: Collection[str]) -> int:
    """Load the target with these encoders; returns the samples per batch."""
    target = prepared.target
    target.encoders = {spec: encoder for spec, encoder in prepared.encoders.items() if spec in encoders}
    threads = options.threads or min(MAX_THREADS, len(os.sched_getaffinity(0)))
    with blaming("target", prepared.plan.target, type(target)):
        target.open(
            device=open_device(options.device),
            dtype=options.dtype,
            rows=options.rows,
            threads=threads,
            share=options.share,
            latent=options.latent,
        )
    return options.batch or default_batch(target, threads)


def _explain(prepared: Prepared, options: RunOptions) -> None:
    """Save pictures; what cannot be made is said, and costs nothing else."""
    from mia_bench.engine.artifacts import explain

    explained = [a for a in prepared.attacks.values() if type(a).artifacts is not Attack.artifacts]
    size = _open_target(prepared, options, {spec for attack in explained for spec in attack.encoders()})
    failed = explain(
        prepared.plan,
        prepared.attacks,
        prepared.samples,
        prepared.target,
        prepared.noise,
        prepared.store,
        options.artifacts,
        size,
    )
    for label, why in failed.items():
        logging.getLogger("mia_bench").warning("no pictures of %s: %s", label, why)


def default_batch(target: Target, threads: int) -> int:
    """Samples per batch: a call for every thread on a CPU, one call on a GPU."""
    return target.denoiser.rows.rows * (threads if target.device.startswith("cpu") else 1)


def rescore(registry: Registry, folder: Path, options: Options) -> Result:
    """As `rescore_tasks`, for membership."""
    return rescore_tasks(registry, folder, options)[0]


def rescore_tasks(
    registry: Registry, folder: Path, options: Options, positives: str = "members", negatives: str | None = None
) -> tuple[Result, ...]:
    """Score a run again from its stored measurements, with other scoring parameters or for other tasks if given.

    Raises:
        NothingError: The run holds no samples to compare.
        UsageError: A parameter was changed that needs new measurements, or a plugin of the run is not loaded.
    """
    from mia_bench.engine.score import score_run

    store = Store(folder)
    plan = read_plan(store)
    for key in options:
        if all(key not in (a.name, a.label) for a in plan.attacks):
            raise UsageError(
                f"option for {key!r}", "the run has no such attack", "`mia-bench report RUN` shows its rows"
            )
    replanned = []
    for planned in plan.attacks:
        known = {*registry.attacks, *(p.name for p in registry.broken)}
        if planned.name not in known and plan.command:
            what = f"attack {planned.name!r} of the run"
            raise UsageError(what, "no plugin loaded has it", f"add -p FILE.py; the run was `{plan.command}`")
        cls = registry.attack(planned.name)
        before = stored_params(cls, planned)
        given = {**options.get(planned.name, {}), **options.get(planned.label, {})}
        params = before
        if given:
            params = make_params(cls, planned.label, {planned.label: {**planned.params, **given}})
            planned = planned.model_copy(update={"changed": changed(cls, planned.label, params, plan.target_kind)})
        if params.measuring() != before.measuring():
            raise UsageError(
                f"option for {planned.label}",
                "it changes what is measured",
                "use `mia-bench run` with the same option",
            )
        replanned.append(planned.model_copy(update={"params": params.model_dump(mode="json")}))
    plan = plan.model_copy(update={"attacks": tuple(replanned)})
    tasks = tasks_of(plan, positives, negatives)
    with store.locked():
        unfinished = _unfinished(plan, store) if _interrupted(folder) else ""
        return score_run(plan, instances(registry, plan), store, unfinished=unfinished, tasks=tasks)


def _interrupted(folder: Path) -> bool:
    """Whether the last run was: it removes its result when it starts, and writes it when all is measured."""
    if not (folder / "results.json").exists():
        return True
    try:
        return bool(read_result(folder).unfinished)
    except UnavailableError:  # damaged, or of another version: it is about to be written anew
        return False


def _unfinished(plan: Plan, store: Store) -> str:
    """How far an interrupted run has come, or nothing if all is measured."""
    from mia_bench.engine.measure import lacking

    total, left = len(plan.samples.id), sum(map(len, lacking(plan, store).values()))
    return f"{total - left} of {total} samples are measured" if left else ""


def read_plan(store: Store) -> Plan:
    """The plan of a run folder.

    Raises:
        UnavailableError: It is missing, damaged, or of another version.
    """
    content: dict[str, Any] = store.read_json("run.json")
    try:
        return Plan.model_validate(content)
    except ValueError as error:
        reason = f"not a plan of this version: {brief(error)}"
        raise UnavailableError(f"run folder {store.folder}", reason, "run again into a new folder") from error


def read_result(path: Path) -> Result:
    """The result of a run folder, or of a results file (as `run --json` prints it).

    Raises:
        UnavailableError: It is missing, damaged, of another version, or the run is unfinished.
    """
    folder, name = (path.parent, path.name) if path.is_file() else (path, "results.json")
    store = Store(folder)
    if not (folder / name).exists() and (folder / "run.json").exists():
        plan = read_plan(store)
        raise UnavailableError(
            f"run folder {folder}", f"unfinished: {_unfinished(plan, store) or 'not scored'}", plan.goes_on
        )
    fix = f"`mia-bench score {folder}` writes it anew"
    if path.is_file():
        fix = "give a run folder, or a file that `mia-bench run --json` printed"
    content = store.read_json(name, fix)
    try:
        return Result.model_validate(content)
    except ValueError as error:
        raise UnavailableError(f"file {folder / name}", f"not a result of this version: {brief(error)}", fix) from error
