"""What a run will do, decided before anything heavy is loaded: samples, resolved parameters, identities."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mia_bench.attack import Attack, Capability, Control, source_of
from mia_bench.dataset import Dataset, Sample, Split
from mia_bench.encoder import Encoder
from mia_bench.engine.encoders import Resolve
from mia_bench.engine.label import Label
from mia_bench.engine.select import Selected
from mia_bench.errors import NothingError, UnavailableError, UsageError
from mia_bench.result import Division, Task
from mia_bench.target import Target

PLAN_VERSION = 1
MEASUREMENT_VERSION = 1  # raise it when the harness's own arithmetic (noise, schedule, reductions, pixels) changes


WITHOUT = {
    Capability.DENOISE: "shows no predicted noise",
    Capability.CAPTION: "takes no captions",
    Capability.GENERATE: "generates no images",
    Capability.VARY: "draws from captions alone",
    Capability.GRADIENT: "gives no gradients",
    Capability.REFERENCE: "has no reference model beside it",
}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlannedAttack(_Record):
    """One row of the table to be."""

    label: str
    name: str
    control: bool
    params: dict[str, Any]
    changed: tuple[str, ...]  # parameters the user set to other than the default or the preset
    queries: int
    caption: Literal["unused", "optional", "required"]
    samples: int | None = None  # most of each class in each split
    encoders: tuple[str, ...] = ()
    fingerprint: str  # identity of its measurements
    definition: str = ""  # the same without target, noise and precision: what must be equal in rows that are compared


class Skipped(_Record):
    """An attack that cannot run here, and why."""

    label: str
    reason: str


class SampleTable(_Record):
    """The samples, column by column, in the order they are taken."""

    id: tuple[str, ...]
    digest: tuple[str, ...]
    split: tuple[Split, ...]
    member: tuple[bool | None, ...]
    group: tuple[str, ...]
    captioned: tuple[bool, ...]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> SampleTable:
        """These samples, in this order."""
        return cls(
            id=tuple(s.id for s in samples),
            digest=tuple(s.digest for s in samples),
            split=tuple(s.split for s in samples),
            member=tuple(s.member for s in samples),
            group=tuple(s.group or s.id for s in samples),
            captioned=tuple(bool(s.caption) for s in samples),
        )

    @property
    def audit(self) -> NDArray[np.bool_]:
        return np.array([s == "audit" for s in self.split], dtype=bool)

    @property
    def calibrating(self) -> NDArray[np.bool_]:
        return np.array([s == "calibration" for s in self.split], dtype=bool) & self.labelled

    @property
    def labelled(self) -> NDArray[np.bool_]:
        return np.array([m is not None for m in self.member], dtype=bool)

    @property
    def is_member(self) -> NDArray[np.bool_]:
        return np.array([m is True for m in self.member], dtype=bool)

    def first(self, count: int | None) -> NDArray[np.bool_]:
        """The first `count` samples of each class in each split, bool `(N,)`; all if None."""
        seen = Counter[tuple[Split, bool | None]]()
        kept = []
        for kind in zip(self.split, self.member, strict=True):
            seen[kind] += 1
            kept.append(count is None or seen[kind] <= count)
        return np.array(kept, dtype=bool)

    def sides(self, task: Task) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Positives and negatives of a task, bool `(N,)` each."""
        known = self.audit & self.labelled
        groups = {
            "members": known & self.is_member,
            "nonmembers": known & ~self.is_member,
            "memorised": np.array([s == "memorised" for s in self.split], dtype=bool),
            "suspects": self.audit & ~self.labelled,
        }
        return groups[task.positives], groups[task.negatives]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.id, self.digest, strict=True))

    @property
    def digest_of_all(self) -> str:
        """Hash of the sample list; belongs to the result."""
        return hashlib.sha256(json.dumps([self.pairs, self.split, self.member]).encode()).hexdigest()[:32]


class Plan(_Record):
    """Everything that decides a run's numbers; the manifest `run.json` holds this, and the command for messages."""

    schema_version: int = PLAN_VERSION
    dataset: str
    dataset_revision: str
    target: str
    target_kind: Literal["pixel", "latent"]
    target_fingerprint: str
    target_options: dict[str, Any] = {}  # what differs from the defaults
    target_facts: dict[str, Any] = {}  # repository, commit, weight files: recorded, never compared
    reference: str | None = None
    reference_fingerprint: str | None = None
    uses_captions: bool
    seed: int
    noise: str
    dtype: str
    latent: Literal["mode", "sample"]
    independent_noise: bool
    calibration: str | None  # why there is no usable calibration set, or None
    division: Division | None = None
    captions: str = "true"
    attacks: tuple[PlannedAttack, ...]
    skipped: tuple[Skipped, ...]
    samples: SampleTable
    command: str = ""

    @property
    def goes_on(self) -> str:
        """What to do to finish the run."""
        return f"go on with `{self.command or 'mia-bench run'}`" + ("" if self.command else " as it was called")


def take(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """Samples in the order of their id's hash, at most `limit` of each class in each split."""
    taken: list[Sample] = []
    counts: dict[object, int] = {}
    for sample in sorted(samples, key=lambda s: s.order):
        kind = (sample.split, sample.member)
        counts[kind] = counts.get(kind, 0) + 1
        if limit is None or counts[kind] <= limit:
            taken.append(sample)
    ids = [s.id for s in taken]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise UnavailableError(f"dataset sample {twice!r}", "the id occurs twice", "give every sample its own id")
    return taken


def make_plan(
    *,
    dataset: Dataset,
    dataset_spec: str,
    target: Target,
    target_spec: str,
    samples: Sequence[Sample],
    selected: Sequence[Selected],
    seed: int,
    noise: str,
    dtype: str,
    latent: Literal["mode", "sample"],
    encoder_of: Resolve,
    independent_noise: bool = False,
    reference_spec: str | None = None,
    division: Division | None = None,
    captions: str = "true",
    command: str = "",
) -> Plan:
    """Decide what runs on what.

    Raises:
        NothingError: No sample or no attack is left.
        UsageError: An attack asked for by name cannot run on this target or dataset.
        UnavailableError: An encoder that it names is not at hand.
    """
    usable = calibration_gap(samples)
    samples, usable = _placed(samples, usable)
    if not any(s.split == "audit" for s in samples):
        raise NothingError(f"dataset {dataset_spec}", "no audit sample is left", "raise --limit or check the dataset")
    attacks: list[PlannedAttack] = []
    skipped = []
    of_target = [target.fingerprint, source_of(type(target), (Target,))]
    for one in selected:
        attack = one.cls(one.params.resolved(target.meta.kind))
        one = replace(one, label=str(Label.parse(one.label).of(attack)))  # an encoder may depend on the kind
        if any(one.label == planned.label for planned in attacks):
            continue  # named twice: by its own name, and by what that means here
        reason = obstacle(attack, target, samples, usable)
        if reason and one.named:
            shows = f"`mia-bench doctor --target {shlex.quote(target_spec)}` shows what runs"
            fix = f"leave {one.label} out of --attacks; {shows}"
            raise UsageError(f"attack {one.label!r}", reason, fix)
        made_by_encoders = []
        try:
            for spec, offers in {} if reason else attack.encoders().items():
                encoder = encoder_of(spec, offers, one.label)
                made_by_encoders += [encoder.fingerprint, source_of(type(encoder), (Encoder,))]
        except UnavailableError as error:
            if one.named:
                raise
            reason = f"{error.why.partition(';')[0]}; `mia-bench describe {spec.partition(':')[0]}` says how to get it"
        if reason:
            skipped.append(Skipped(label=one.label, reason=reason))
            continue
        params = attack.params
        salt = one.cls.meta.name if independent_noise and not one.control else ""
        made_by = [] if one.control else [*of_target, noise, dtype, latent, salt]
        if target.reference and Capability.REFERENCE in attack.needs():
            made_by += [target.reference.fingerprint, source_of(type(target.reference), (Target,))]
        made_by += made_by_encoders
        attacks.append(
            PlannedAttack(
                label=one.label,
                name=one.cls.meta.name,
                control=one.control,
                params=params.model_dump(mode="json"),
                changed=changed(one.cls, one.label, params, target.meta.kind),
                queries=attack.queries() if Capability.DENOISE in target.capabilities else attack.generations(),
                caption=one.cls.meta.caption,
                fingerprint=identity(one.cls, params, made_by),
                definition=identity(one.cls, params, made_by_encoders),
                samples=params.samples,
                encoders=tuple(attack.encoders()),
            )
        )
    if not attacks or (skipped and all(a.control for a in attacks)):
        why = "; ".join(f"{s.label}: {s.reason}" for s in skipped) or "the selection matches no attack"
        raise NothingError("no attack is left to run", why, "`mia-bench list attacks` shows all")
    return Plan(
        dataset=dataset_spec,
        dataset_revision=dataset.revision,
        target=target_spec,
        target_kind=target.meta.kind,
        target_fingerprint=target.fingerprint,
        target_options=target.options.given,
        target_facts=dict(target.facts()),
        reference=reference_spec,
        reference_fingerprint=target.reference and target.reference.fingerprint,
        uses_captions=target.conditioned and any(s.caption for s in samples),
        seed=seed,
        noise=noise,
        dtype=dtype,
        latent=latent,
        independent_noise=independent_noise,
        calibration=usable,
        division=division,
        captions=captions,
        attacks=tuple(attacks),
        skipped=tuple(skipped),
        samples=SampleTable.of(samples),
        command=command,
    )


def identity(cls: type[Attack], params: Any, made_by: Sequence[str]) -> str:
    """Identity of a measurement: it may be reused exactly where this is equal (and the sample's hash)."""
    source = source_of(cls, (Control, Attack))
    parts = [MEASUREMENT_VERSION, cls.meta.name, cls.meta.version, source, params.measuring(), list(made_by)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def changed(cls: type[Attack], label: str, params: Any, kind: str) -> tuple[str, ...]:
    """Parameters that differ from the label's own, for the reader of a table."""
    parts = Label.parse(label)
    own_values = {**cls.presets.get(parts.preset, {})} | ({"encoder": parts.encoder} if parts.encoder else {})
    own = cls.Params.model_validate(own_values).resolved(kind)
    return tuple(name for name in cls.Params.model_fields if getattr(own, name) != getattr(params, name))


def calibration_gap(samples: Sequence[Sample]) -> str | None:
    """Why the calibration split cannot be used, or None if it holds members and non-members."""
    labels = {s.member for s in samples if s.split == "calibration"} - {None}
    if not labels:
        return "the dataset has no labelled calibration set"
    missing = {True: "members", False: "non-members"}
    gap = [missing[m] for m in (True, False) if m not in labels]
    return f"the calibration set holds no {gap[0]}" if gap else None


def _placed(samples: Sequence[Sample], gap: str | None) -> tuple[Sequence[Sample], str | None]:
    """The samples to measure, and what is wrong with the calibration set.

    One without both classes cannot calibrate anything, so it is not measured. But where the audit set has no known
    non-members, those of the calibration set take their place: nothing is fitted on them, and thresholds need them.
    """
    if gap is None:
        return samples, None
    lent: set[str] = set()
    audited = {s.member for s in samples if s.split == "audit"}
    if audited and False not in audited:
        lent = {s.id for s in samples if s.split == "calibration" and s.member is False}
    placed = [
        replace(s, split="audit") if s.id in lent else s for s in samples if s.split != "calibration" or s.id in lent
    ]
    return placed, gap + (f"; its {len(lent)} non-members are in the audit set" if lent else "")


def obstacle(attack: Attack, target: Target, samples: Sequence[Sample], no_calibration: str | None) -> str | None:
    """Why an attack cannot run on this target and these samples, or None."""
    lacking = attack.needs() - target.capabilities
    if lacking == {Capability.REFERENCE}:
        return "it asks a second model, the one the target was tuned from: name it with --reference"
    if lacking:
        return f"target {target.meta.name} {' and '.join(WITHOUT[c] for c in Capability if c in lacking)}"
    if attack.meta.caption == "required" and not any(s.caption for s in samples):
        return "it needs captions and no sample has one"
    if attack.meta.calibration == "required" and no_calibration:
        return f"it is trained on a calibration set, and {no_calibration}"
    return None
