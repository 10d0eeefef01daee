"""One run from options to a result: plan, measure what is missing, score."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mia_bench.attack import Attack
from mia_bench.engine.calibrate import calibrating_run
from mia_bench.engine.caption_controls import controls_of, rescore_controls, run_controls, with_controls
from mia_bench.engine.events import RunFinished, RunStarted
from mia_bench.engine.label import Label
from mia_bench.engine.plan import Plan, PlannedAttack, changed, combining, read_plan
from mia_bench.engine.prepare import Prepared, RunOptions, class_of, instances, prepare, stored_params
from mia_bench.engine.recorded import read
from mia_bench.engine.select import Options, label_of, make_params
from mia_bench.engine.tasks import tasks_of
from mia_bench.engine.worker import InProcess, open_target
from mia_bench.errors import UnavailableError, UsageError, brief
from mia_bench.executor import Job, inherited
from mia_bench.imported import IMPORTED
from mia_bench.plugins import Registry
from mia_bench.result import MEMBERSHIP, Result
from mia_bench.store import ARTIFACTS, Store
from mia_bench.trace import recording, span

if TYPE_CHECKING:
    from mia_bench.engine.estimate import Estimate
    from mia_bench.engine.measure import Outcome
    from mia_bench.engine.shards import Shard
    from mia_bench.target import Target


def run(registry: Registry, options: RunOptions) -> Result:
    """As `run_tasks`, for the first task; of memorised images that is against other members."""
    return run_tasks(registry, options)[0]


def run_tasks(registry: Registry, options: RunOptions, target: Target | None = None) -> tuple[Result, ...]:
    """Measure what the run folder does not hold yet, then score everything.

    Args:
        registry: All plugins.
        options: The user's.
        target: What the same options led to before; it may be loaded already.

    Returns:
        A result for each task that the options ask for. What the folder keeps is of membership, always.

    Raises:
        MiaBenchError: The run cannot start or go on; what was measured stays in the folder.
    """
    prepared = prepare(registry, options, fetch=True, target=target)
    controls_of(registry, options, prepared)  # what is wrong with them is said before anything is measured
    results = run_prepared(registry, prepared, options)
    return beside_controls(prepared.store, results, run_controls(registry, options, prepared))


def run_prepared(registry: Registry, prepared: Prepared, options: RunOptions) -> tuple[Result, ...]:
    """As `run_tasks`, of what these options led to."""
    from mia_bench.engine.score import score_run

    with prepared.store.locked():
        prepared.store.set_aside_damaged()
        outcome = measure(registry, prepared, options)
        prepared.store.compact()
        results = score_run(prepared.plan, prepared.attacks, prepared.store, outcome, tasks=prepared.tasks)
        if options.artifacts:
            _explain(prepared, options)
        return results


def run_shard(registry: Registry, options: RunOptions, shard: Shard) -> list[tuple[Path, Outcome]]:
    """Measure a share of the samples and store it beside what others measure; nothing is scored.

    Returns:
        Of the run, and of each control that was asked for, the folder and what could not be measured.

    Raises:
        UsageError: What was asked for needs all samples, or others are measuring another plan in the folder.
        MiaBenchError: As `run_tasks`.
    """
    from mia_bench.engine.shards import begin, record

    if options.artifacts:
        fix = "merge the shards, then run the same command without --shard: it measures nothing again"
        raise UsageError("--artifacts", "pictures are chosen by score, and a shard is not scored", fix)
    prepared = prepare(registry, options, fetch=True)
    wanted = {"": options, **controls_of(registry, options, prepared)}
    done = []
    for choice, own in wanted.items():
        one = prepare(registry, own, target=prepared.target) if choice else prepared
        with one.store.locked(shard.name):
            begin(shard, one.plan, one.store)
            one.store.set_aside_damaged()
            outcome = measure(registry, one, own, shard)
            record(shard, one.plan, one.store, outcome)
        done.append((one.store.folder, outcome))
    return done


def measure(registry: Registry, prepared: Prepared, options: RunOptions, shard: Shard | None = None) -> Outcome:
    """Measure what the run folder, which the caller has locked, does not hold yet.

    Raises:
        MiaBenchError: The run cannot start or go on; what was measured stays in the folder.
    """
    from mia_bench.engine.dispatch import Dispatcher, tasks_of_work
    from mia_bench.engine.measure import Outcome, pending

    plan, store = prepared.plan, prepared.store
    before = read_plan(store) if (store.folder / "run.json").exists() else None
    if before and before.sources:
        what, why = f"run folder {store.folder}", "it holds imported scores, which a run would replace"
        raise UsageError(what, why, "choose another folder with --out")
    owned = shard.owns(plan) if shard else frozenset(plan.samples.id)
    work = pending(plan, prepared.samples, store, owned)
    stored = len(owned) - sum(len(group.samples) for group in work)
    job = Job(
        options=options,
        plugins=registry.files,
        plan=plan.digest,
        encoders=frozenset(spec for group in work for attack in group.attacks for spec in attack.encoders),
        directory=Path.cwd(),
        environment=inherited(),
        profile=recording(),
        prepared=prepared,
    )

    def begin() -> None:
        if not (shard and before and before.digest == plan.digest):  # others are reading it
            store.write_json("run.json", plan.model_dump(mode="json"))
        if work or not shard:
            # Earlier scores may be of another plan; a run that is stopped must not leave them as its result.
            store.remove("results.json", "scores.parquet", ARTIFACTS)

    if not work:
        begin()
        registry.run_started(RunStarted((), 0, stored, 0, str(store.folder), plan.captions))
        registry.run_finished(RunFinished(0, 0.0))
        return Outcome()
    executor = registry.executor(options.executor) if options.executor else InProcess
    with Dispatcher(executor(options.workers), job, registry) as dispatcher:
        size = dispatcher.open()
        begin()  # not before: a target that cannot be opened costs no earlier result
        tasks = tasks_of_work(work, size, len(dispatcher.jobs))
        return dispatcher.run(tasks, stored, str(store.folder), plan.captions)


def beside_controls(
    store: Store, results: tuple[Result, ...], failed: Mapping[str, str] | None = None
) -> tuple[Result, ...]:
    """Results with what controls in the folder say, which the folder's own result keeps too."""
    kept = read_result(store.folder)
    beside = with_controls(store.folder, kept, failed)
    if beside.controls != kept.controls:
        store.write_json("results.json", beside.model_dump(mode="json"))
    return tuple(
        result.model_copy(update={"controls": beside.controls}) if result.task == MEMBERSHIP else result
        for result in results
    )


def foresee(prepared: Prepared, options: RunOptions, beside: Sequence[Prepared] = ()) -> Estimate:
    """What is left of a run, and how long it may take; loads the target and stores nothing.

    Args:
        prepared: The run.
        options: What it was made from.
        beside: Its controls.

    Raises:
        MiaBenchError: The target cannot be loaded or asked.
    """
    from mia_bench.engine.estimate import estimate
    from mia_bench.engine.measure import pending

    work = [group for one in (prepared, *beside) for group in pending(one.plan, one.samples, one.store)]
    return estimate(work, prepared.target, open_target(prepared, options, ()))


@span("pictures")
def _explain(prepared: Prepared, options: RunOptions) -> None:
    """Save pictures; what cannot be made is said, and costs nothing else."""
    from mia_bench.engine.artifacts import explain

    explained = [a for a in prepared.attacks.values() if type(a).artifacts is not Attack.artifacts]
    size = open_target(prepared, options, {spec for attack in explained for spec in attack.encoders()})
    failed = explain(
        prepared.plan,
        prepared.attacks,
        prepared.samples,
        prepared.target,
        prepared.noise,
        prepared.store,
        options.artifacts,
        size,
        prepared.plan.samples.suspects if options.artifacts_of == "suspects" else prepared.plan.samples.audit,
    )
    for label, why in failed.items():
        logging.getLogger("mia_bench").warning("no pictures of %s: %s", label, why)


def rescore(registry: Registry, folder: Path, options: Options) -> Result:
    """As `rescore_tasks`, for membership."""
    return rescore_tasks(registry, folder, options)[0]


def rescore_tasks(
    registry: Registry,
    folder: Path,
    options: Options,
    positives: str = "members",
    negatives: str | None = None,
    calibrate_on: Path | None = None,
) -> tuple[Result, ...]:
    """Score a run again from its stored measurements, with other scoring parameters or for other tasks if given.

    It is calibrated as it was planned, or on the run in `calibrate_on`; its own folder means its calibration set.

    Raises:
        NothingError: The run holds no samples to compare.
        UnavailableError: It is a baseline, without measurements.
        UsageError: A parameter was changed that needs new measurements, or a plugin of the run is not loaded.
    """
    from mia_bench.engine.score import score_run

    store = Store(folder)
    plan = replan(registry, folder, options, calibrate_on)
    tasks = tasks_of(plan, positives, negatives)
    with store.locked():
        results = score_run(plan, instances(registry, plan), store, unfinished=how_unfinished(plan, store), tasks=tasks)
    rescore_controls(registry, folder, options)
    return beside_controls(store, results)


def replan(registry: Registry, folder: Path, options: Options, calibrate_on: Path | None = None) -> Plan:
    """The plan of a run with other scoring parameters if given.

    Raises:
        UnavailableError: It is a baseline, without measurements.
        UsageError: A parameter was changed that needs new measurements, or a plugin of the run is not loaded.
    """
    store = Store(folder)
    plan = read_plan(store)
    if (folder / "results.json").exists() and not any(store.shards.glob("*.parquet")):
        why = "it holds no measurements, only what was scored: a baseline"
        raise UnavailableError(f"run folder {folder}", why, "score the run that it was recorded from")
    for key in options:
        if all(key not in (a.name, a.label) for a in plan.attacks):
            raise UsageError(
                f"option for {key!r}", "the run has no such attack", "`mia-bench report RUN` shows its rows"
            )
    replanned: list[PlannedAttack] = []
    for planned in sorted(plan.attacks, key=lambda a: bool(a.requires)):  # what others require comes first
        known = {*registry.attacks, *(p.name for p in registry.broken), IMPORTED}
        if planned.name not in known and plan.command:
            what = f"attack {planned.name!r} of the run"
            raise UsageError(what, "no plugin loaded has it", f"add -p FILE.py; the run was `{plan.command}`")
        cls = class_of(registry, planned)
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
        planned = planned.model_copy(update={"params": params.model_dump(mode="json")})
        if planned.requires:
            planned = combining(planned, cls, params, _bases(registry, cls(params), planned, replanned), replanned)
        replanned.append(planned)
    return calibrating_run(calibrate_on, plan.model_copy(update={"attacks": tuple(replanned)}), folder)


def _bases(
    registry: Registry, attack: Attack, planned: PlannedAttack, before: Sequence[PlannedAttack]
) -> list[PlannedAttack]:
    """What a row combines with its parameters as they are now: rows before it.

    Raises:
        UsageError: The run has no such row.
    """
    found = []
    for text in attack.requires():
        label = label_of(registry, text)
        # By the encoder of the run, where the label names none: what that is may depend on the kind of target.
        rows = [a for a in before if str(label) in (a.label, Label.parse(a.label).bare)]
        if not rows:
            why = f"it requires {label}, which the run did not measure"
            known = ", ".join(a.label for a in before if not a.control)
            fix = f"use `mia-bench run` with the same option; the run has {known}"
            raise UsageError(f"option for {planned.label}", why, fix)
        found.append(rows[0])
    return found


def _interrupted(folder: Path) -> bool:
    """Whether the last run was: it removes its result when it starts, and writes it when all is measured."""
    if not (folder / "results.json").exists():
        return True
    try:
        return bool(read_result(folder).unfinished)
    except UnavailableError:  # damaged, or of another version: it is about to be written anew
        return False


def how_unfinished(plan: Plan, store: Store) -> str:
    """How far the last run came if it was interrupted, or nothing."""
    return how_far(plan, store) if _interrupted(store.folder) else ""


def how_far(plan: Plan, store: Store) -> str:
    """How far an interrupted run has come, or nothing if all is measured."""
    from mia_bench.engine.measure import lacking

    total, left = len(plan.samples.id), sum(map(len, lacking(plan, store).values()))
    return f"{total - left} of {total} samples are measured" if left else ""


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
            f"run folder {folder}", f"unfinished: {how_far(plan, store) or 'not scored'}", plan.goes_on
        )
    fix = f"`mia-bench score {folder}` writes it anew"
    if path.is_file():
        fix = "give a run folder, or a file that `mia-bench run --json` printed"
    content = store.read_json(name, fix)
    try:
        return read(content)
    except ValueError as error:
        raise UnavailableError(f"file {folder / name}", f"not a result of this version: {brief(error)}", fix) from error
