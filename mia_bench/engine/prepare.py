"""From what a user chose to a planned run: names, samples, parameters and encoders resolved, nothing heavy loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from mia_bench.attack import Attack
from mia_bench.dataset import Dataset, Sample
from mia_bench.diffusion.noise import KeyedNoise, NoiseSource, RecordedNoise
from mia_bench.encoder import Encoder, Offer
from mia_bench.engine.blame import blaming
from mia_bench.engine.calibrate import Other
from mia_bench.engine.captions import recaptioned
from mia_bench.engine.encoders import resolver
from mia_bench.engine.named import open_dataset, open_reference, open_target, pair, spec_text
from mia_bench.engine.plan import Plan, PlannedAttack, make_plan
from mia_bench.engine.samples import take
from mia_bench.engine.select import Options, select
from mia_bench.engine.splits import divide
from mia_bench.engine.tasks import tasks_of
from mia_bench.errors import UnavailableError, UsageError, brief
from mia_bench.imported import IMPORTED, Imported
from mia_bench.plugins import Registry
from mia_bench.result import MEMBERSHIP, Task
from mia_bench.store import Store
from mia_bench.target import Target, TargetOptions
from mia_bench.trace import STARTUP, span

DEFAULT_DATASET = "fluent-emoji"
USUAL_DEVICES = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")


@dataclass(frozen=True)
class RunOptions:
    """What a user can choose; the defaults run everything on the embedded benchmark.

    A dataset and a target that are not given are each other's own.
    """

    attacks: str = "all"
    keyword: str | None = None
    only: Collection[str] | None = None  # labels of those to be kept, whatever the others would need
    dataset: str | None = None
    target: Any = None  # what is written on the command line, or a pipeline object
    target_options: TargetOptions = field(default_factory=TargetOptions)
    reference: str | None = None
    limit: int | None = None
    calibration: float | None = None  # share of each class to set apart
    balance: bool = False  # cut the larger class to the size of the smaller
    split_seed: int | None = None  # of these two
    calibrate_on: Path | None = None  # the run whose samples calibrate, in place of the calibration set
    captions: str = "true"  # see `engine.captions`
    controls: bool = False  # run those of `engine.caption_controls` too
    seed: int = 0
    device: str | None = None
    dtype: str = "float32"
    latent: Literal["mode", "sample"] = "mode"
    rows: int | None = None
    threads: int | None = None
    batch: int | None = None
    executor: str | None = None  # what measures; this process if None
    workers: int | None = None  # by the executor if None
    share: bool = True
    independent_noise: bool = False
    noise: Path | None = None
    out: Path | None = None
    compile: bool = False  # the denoiser's network; numbers stay within 1e-5
    fail_fast: bool = False
    full: bool = False  # published settings where `all` would take the dataset's own preset
    artifacts: int = 0  # pictures of so many of the highest, median and lowest scores
    artifacts_of: Literal["audit", "suspects"] = "audit"  # among which samples
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


@span(STARTUP)
def prepare(registry: Registry, options: RunOptions, fetch: bool = False, target: Target | None = None) -> Prepared:
    """Resolve names, samples and parameters; reads files but loads no model.

    Args:
        registry: All plugins.
        options: The user's.
        fetch: Whether images may be fetched that are not here yet.
        target: What the same options led to before, with its reference: it may be loaded already.

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
        known, target = target is not None, target or open_target(registry, given, options.target_options)
        _ = target.fingerprint  # kept for later
    if options.reference and not known:
        with blaming("reference", options.reference, Target):
            open_reference(registry, target, options.reference)
    with blaming("dataset", named, type(dataset)):
        if fetch:
            dataset.fetch(_needed(options), options.allow_origin)
        everything = dataset.samples()
    divided, division = divide(everything, options.calibration, options.balance, options.split_seed, named)
    encoder_of = resolver(registry, target.meta.kind)
    label = f"--captions {options.captions}"
    samples = recaptioned(
        take(divided, options.limit),
        divided,
        options.captions,
        lambda name: encoder_of(name, frozenset({Offer.CAPTION}), label),
        options.device,
    )
    preset = "" if options.full else dataset.meta.preset
    selected = select(registry, options.attacks, options.keyword, options.options, preset)
    if options.noise and options.independent_noise:
        raise UsageError("--independent-noise", "recorded noise is what it is", "leave out --noise or this option")
    other = Other.read(options.calibrate_on) if options.calibrate_on else None
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
        shadow=other.record if other else None,
        command=options.command,
    )
    if options.only is not None:
        plan = plan.kept(options.only)
    store = Store(options.out or default_folder(named, spec, options))
    if other:
        other.check(plan)
        plan = other.calibrating(plan, store.folder)
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


def default_folder(dataset: str, target: str, options: RunOptions) -> Path:
    """`runs/DATASET--TARGET--seedN`, with path separators made harmless.

    Where the target is loaded otherwise than by default, or captions are not the samples' own, that is in the name too:
    a folder keeps the results of one model.
    """
    parts = [dataset, target]
    if given := options.target_options.given:
        parts.append(hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:8])
    if options.captions != "true":
        parts.append(options.captions)
    clean = ["".join(c if c.isalnum() or c in "-._" else "_" for c in part).strip("_.")[:80] for part in parts]
    return Path("runs") / "--".join([*clean, f"seed{options.seed}"])


def instances(registry: Registry, plan: Plan) -> dict[str, Attack]:
    """Attack instances for every planned row."""
    made: dict[str, Attack] = {}
    for planned in plan.attacks:
        cls = class_of(registry, planned)
        made[planned.label] = cls(stored_params(cls, planned))
    return made


def class_of(registry: Registry, planned: PlannedAttack) -> type[Attack]:
    """The attack of a planned row; imported scores have one that is no plugin."""
    return Imported if planned.name == IMPORTED else registry.attack(planned.name)


def stored_params(cls: type[Attack], planned: PlannedAttack) -> Any:
    """Parameters of a planned row.

    Raises:
        UsageError: They are of another version.
    """
    try:
        return cls.Params.model_validate(planned.params)
    except ValidationError as error:
        why = f"the run was made by another version: {brief(error)}"
        raise UsageError(f"attack {planned.label}", why, "use `mia-bench run` into a new folder") from None
