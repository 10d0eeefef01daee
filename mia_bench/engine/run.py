"""One run from options to a result: plan, measure what is missing, score."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from mia_bench.attack import Attack
from mia_bench.dataset import Dataset, Sample
from mia_bench.diffusion.noise import KeyedNoise, NoiseSource, RecordedNoise
from mia_bench.encoder import Encoder, Offer
from mia_bench.engine.blame import blaming
from mia_bench.engine.captions import recaptioned
from mia_bench.engine.encoders import resolver
from mia_bench.engine.events import RunFinished, RunStarted
from mia_bench.engine.named import open_dataset, open_reference, open_target, pair, spec_text
from mia_bench.engine.plan import Plan, PlannedAttack, changed, make_plan, take
from mia_bench.engine.select import Options, make_params, select
from mia_bench.engine.splits import divide
from mia_bench.engine.tasks import tasks_of
from mia_bench.errors import UnavailableError, UsageError, brief
from mia_bench.plugins import Registry
from mia_bench.result import MEMBERSHIP, Result, Task
from mia_bench.store import ARTIFACTS, Store
from mia_bench.target import Target, TargetOptions

if TYPE_CHECKING:
    from mia_bench.engine.estimate import Estimate

DEFAULT_DATASET = "fluent-emoji"
USUAL_DEVICES = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")
MAX_THREADS = 16  # by default: each thread holds the activations of one network call


@dataclass(frozen=True)
class RunOptions:
    """What a user can choose; the defaults run everything on the embedded benchmark.

    A dataset and a target that are not given are each other's own.
    """

    attacks: str = "all"
    keyword: str | None = None
    dataset: str | None = None
    target: Any = None  # what is written on the command line, or a pipeline object
    target_options: TargetOptions = field(default_factory=TargetOptions)
    reference: str | None = None
    limit: int | None = None
    calibration: float | None = None  # share of each class to set apart
    balance: bool = False  # cut the larger class to the size of the smaller
    split_seed: int | None = None  # of these two
    captions: str = "true"  # see `engine.captions`
    seed: int = 0
    device: str | None = None
    dtype: str = "float32"
    latent: Literal["mode", "sample"] = "mode"
    rows: int | None = None
    threads: int | None = None
    batch: int | None = None
    share: bool = True
    independent_noise: bool = False
    noise: Path | None = None
    out: Path | None = None
    fail_fast: bool = False
    full: bool = False  # published settings where `all` would take the dataset's own preset
    artifacts: int = 0  # pictures of so many of the highest, median and lowest scores
    positives: Literal["members", "memorised"] = "members"
    negatives: Literal["nonmembers", "members"] | None = None  # those that suit the positives
    allow_origin: tuple[str, int] | None = None  # from which images may be fetched though its address is private
    options: Options = field(default_factory=dict)
    command: str = ""  # as the user typed it


@dataclass(frozen=True)
class Prepared:
    """A planned run, nothing heavy loaded yet."""

    plan: Plan
    samples: Mapping[str, Sample]
    target: Target
    noise: NoiseSource
    attacks: Mapping[str, Attack]
    store: Store
    encoders: Mapping[str, Encoder] = field(default_factory=dict)
    tasks: tuple[Task, ...] = (MEMBERSHIP,)


def prepare(registry: Registry, options: RunOptions, fetch: bool = False) -> Prepared:
    """Resolve names, samples and parameters; reads files but loads no model.

    Args:
        registry: All plugins.
        options: The user's.
        fetch: Whether images may be fetched that are not here yet.

    Raises:
        MiaBenchError: Anything the user asked for does not exist or fit.
    """
    if options.device and not USUAL_DEVICES.fullmatch(options.device):
        open_device(options.device)  # imports torch, so usual names wait until there is something to measure
    asked = options.dataset or (f"of {spec_text(options.target)}" if options.target is not None else DEFAULT_DATASET)
    with blaming("dataset", asked, registry.datasets.get(asked.partition(":")[0], Dataset)):
        named, given = pair(registry, options.dataset, options.target, DEFAULT_DATASET)
        dataset = open_dataset(registry, named)
    spec = spec_text(given)
    with blaming("target", spec, registry.targets.get(spec.partition(":")[0], Target)):
        target = open_target(registry, given, options.target_options)
        _ = target.fingerprint  # kept for later
    if options.reference:
        with blaming("reference", options.reference, Target):
            open_reference(registry, target, options.reference)
    with blaming("dataset", named, type(dataset)):
        if fetch:
            dataset.fetch(_needed(options), options.allow_origin)
        everything = dataset.samples()
    divided, division = divide(everything, options.calibration, options.balance, options.split_seed, named)
    encoder_of = resolver(registry, target.meta.kind)
    label = f"--captions {options.captions}"
    with_captions = recaptioned(
        divided, options.captions, lambda name: encoder_of(name, frozenset({Offer.CAPTION}), label), options.device
    )
    samples = take(with_captions, options.limit)
    preset = "" if options.full else dataset.meta.preset
    selected = select(registry, options.attacks, options.keyword, options.options, preset)
    if options.noise and options.independent_noise:
        raise UsageError("--independent-noise", "recorded noise is what it is", "leave out --noise or this option")
    noise: NoiseSource = RecordedNoise.from_npz(options.noise) if options.noise else KeyedNoise(options.seed)
    plan = make_plan(
        dataset=dataset,
        dataset_spec=named,
        target=target,
        target_spec=spec,
        samples=samples,
        selected=selected,
        seed=options.seed,
        noise=noise.identity,
        dtype=options.dtype,
        latent=options.latent,
        encoder_of=encoder_of,
        independent_noise=options.independent_noise,
        reference_spec=options.reference,
        division=division,
        captions=options.captions,
        command=options.command,
    )
    store = Store(options.out or default_folder(named, spec, options.seed))
    tasks = tasks_of(plan, options.positives, options.negatives)
    attacks = instances(registry, plan)
    encoders = {
        spec: encoder_of(spec, offers, label)
        for label, attack in attacks.items()
        for spec, offers in attack.encoders().items()
    }
    return Prepared(plan, {s.id: s for s in samples}, target, noise, attacks, store, encoders, tasks)


def _needed(options: RunOptions) -> int | None:
    """How many samples of each class it takes to have `--limit` of them in each split."""
    if options.limit is None or options.calibration is None:
        return options.limit
    return ceil(options.limit / min(options.calibration, 1 - options.calibration))


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
        prepared.store.write_json("run.json", prepared.plan.model_dump(mode="json"))
        # Earlier scores may be of another plan; a run that is stopped must not leave them as its result.
        prepared.store.remove("results.json", "scores.parquet", ARTIFACTS)
        work = pending(prepared.plan, prepared.samples, prepared.store)
        outcome = None
        if work:
            from mia_bench.engine.provenance import environment

            asking = {spec for group in work for attack in group.attacks for spec in attack.encoders}
            size = _open_target(prepared, options, asking)
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
        before = _stored_params(cls, planned)
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


def instances(registry: Registry, plan: Plan) -> dict[str, Attack]:
    """Attack instances for every planned row."""
    made: dict[str, Attack] = {}
    for planned in plan.attacks:
        cls = registry.attack(planned.name)
        made[planned.label] = cls(_stored_params(cls, planned))
    return made


def _stored_params(cls: type[Attack], planned: PlannedAttack) -> Any:
    try:
        return cls.Params.model_validate(planned.params)
    except ValidationError as error:
        why = f"the run was made by another version: {brief(error)}"
        raise UsageError(f"attack {planned.label}", why, "use `mia-bench run` into a new folder") from None


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


def default_folder(dataset: str, target: str, seed: int) -> Path:
    """`runs/DATASET--TARGET--seedN`, with path separators made harmless."""
    clean = ["".join(c if c.isalnum() or c in "-._" else "_" for c in part).strip("_.") for part in (dataset, target)]
    return Path("runs") / f"{clean[0]}--{clean[1]}--seed{seed}"


def open_device(name: str | None) -> str:
    """The device asked for, or CUDA where there is one.

    Raises:
        UnavailableError: torch cannot use it.
    """
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except Exception as error:  # many kinds: an unknown name, no driver, no module for it
        raise UnavailableError(f"device {name!r}", brief(error), "use --device cpu, or leave it out") from None
    return name
