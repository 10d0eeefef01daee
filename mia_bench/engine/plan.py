"""What a run will do, decided before anything heavy is loaded: samples, resolved parameters, identities."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mia_bench.attack import Attack, Capability, Control, source_of
from mia_bench.dataset import Dataset, Sample
from mia_bench.encoder import Encoder
from mia_bench.engine.encoders import Resolve
from mia_bench.engine.label import Label
from mia_bench.engine.samples import SampleTable
from mia_bench.engine.select import Selected
from mia_bench.errors import NothingError, UnavailableError, UsageError, brief
from mia_bench.result import Division, Shadow, Source
from mia_bench.store import Store
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
    requires: tuple[str, ...] = ()  # labels of the rows that it combines; it measures nothing itself
    fingerprint: str  # identity of its measurements
    definition: str = ""  # the same without target, noise and precision: what must be equal in rows that are compared
    version: int | None = None  # of the definition; None where an older run did not record it
    learns: Literal["nothing", "scale", "classifier"] = "nothing"  # from labels: scales and weights, or by training


class Skipped(_Record):
    """An attack that cannot run here, and why."""

    label: str
    reason: str


class Plan(_Record):
    """Everything that decides a run's numbers; the manifest `run.json` holds this, and the command for messages."""

    schema_version: int = PLAN_VERSION
    measurement_version: int = MEASUREMENT_VERSION
    dataset: str
    dataset_revision: str
    target: str
    target_kind: Literal["pixel", "latent", "unknown"]
    target_fingerprint: str
    target_options: dict[str, Any] = {}  # what differs from the defaults
    target_facts: dict[str, Any] = {}  # repository, commit, weight files: recorded, never compared
    reference: str | None = None
    reference_fingerprint: str | None = None
    uses_captions: bool
    seed: int | None  # None: unknown, of imported scores
    noise: str
    dtype: str
    latent: Literal["mode", "sample", "unknown"]
    independent_noise: bool
    calibration: str | None  # why there is no usable calibration set, or None
    division: Division | None = None
    shadow: Shadow | None = None  # what calibrates in place of the calibration set
    shadow_folder: str = ""  # where that is, from the run's own folder; as it was named if empty
    captions: str = "true"
    attacks: tuple[PlannedAttack, ...]
    skipped: tuple[Skipped, ...]
    samples: SampleTable
    sources: tuple[Source, ...] = ()  # files that scores were imported from; none if they were measured
    command: str = ""

    def kept(self, labels: Collection[str]) -> Plan:
        """With these attacks, what they require, and the controls."""
        wanted = set(labels)
        for one in reversed(self.attacks):  # what is required comes first
            wanted |= set(one.requires) if one.label in wanted else set()
        return self.model_copy(update={"attacks": tuple(a for a in self.attacks if a.control or a.label in wanted)})

    @property
    def digest(self) -> str:
        """Hash of all that decides numbers: plans with the same one can be measured by several and merged."""
        decides = self.model_dump_json(exclude={"command", "target_facts", "shadow_folder"})
        return hashlib.sha256(decides.encode()).hexdigest()[:24]

    @property
    def goes_on(self) -> str:
        """What to do to finish the run."""
        return f"go on with `{self.command or 'mia-bench run'}`" + ("" if self.command else " as it was called")


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
    shadow: Shadow | None = None,
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
    planned_as: dict[str, PlannedAttack | str] = {}  # by selected label; why not, where it is not
    of_target = [target.fingerprint, source_of(type(target), (Target,))]
    for one in selected:
        attack = one.cls(one.params.resolved(target.meta.kind))
        chosen = one.label
        one = replace(one, label=str(Label.parse(one.label).of(attack)))  # an encoder may depend on the kind
        if twin := next((planned for planned in attacks if one.label == planned.label), None):
            planned_as[chosen] = twin
            continue  # named twice: by its own name, and by what that means here
        reason = obstacle(attack, target, samples, None if shadow else usable)
        bases = [planned_as[label] for label in one.requires]
        combined = [base for base in bases if isinstance(base, PlannedAttack)]
        if not reason and len(combined) < len(bases):
            lacking = next((label, why) for label, why in zip(one.requires, bases, strict=True) if isinstance(why, str))
            reason = f"it requires {lacking[0]}: {lacking[1]}"
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
            planned_as[chosen] = reason
            continue
        params = attack.params
        salt = one.cls.meta.name if independent_noise and not one.control else ""
        made_by = [] if one.control else [*of_target, noise, dtype, latent, salt]
        if target.reference and Capability.REFERENCE in attack.needs():
            made_by += [target.reference.fingerprint, source_of(type(target.reference), (Target,))]
        made_by += made_by_encoders
        planned = PlannedAttack(
            label=one.label,
            name=one.cls.meta.name,
            control=one.control,
            params=params.model_dump(mode="json"),
            changed=changed(one.cls, one.label, params, target.meta.kind),
            queries=attack.queries() if Capability.DENOISE in target.capabilities else attack.generations(),
            caption=one.cls.meta.caption,
            fingerprint=identity(one.cls, params, made_by),
            definition=identity(one.cls, params, made_by_encoders),
            version=one.cls.meta.version,
            learns=_learns(one, usable),
            samples=params.samples,
            encoders=tuple(attack.encoders()),
        )
        if combined:
            planned = combining(planned, one.cls, params, combined, attacks)
        planned_as[chosen] = planned
        attacks.append(planned)
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
        shadow=shadow,
        attacks=tuple(attacks),
        skipped=tuple(skipped),
        samples=SampleTable.of(samples),
        command=command,
    )


def _learns(one: Selected, no_calibration: str | None) -> Literal["nothing", "scale", "classifier"]:
    if one.cls.meta.calibration == "required":
        return "classifier"
    fits = one.control or (one.cls.meta.calibration == "optional" and not no_calibration)
    return "scale" if fits else "nothing"


def identity(cls: type[Attack], params: Any, made_by: Sequence[str]) -> str:
    """Identity of a measurement: it may be reused exactly where this is equal (and the sample's hash)."""
    source = source_of(cls, (Control, Attack))
    parts = [MEASUREMENT_VERSION, cls.meta.name, cls.meta.version, source, params.measuring(), list(made_by)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def behind(planned: PlannedAttack, attacks: Sequence[PlannedAttack]) -> dict[str, PlannedAttack]:
    """The measurements that a row comes from, by fingerprint: its own, or those of what it combines."""
    if not planned.requires:
        return {planned.fingerprint: planned}
    bases = [behind(a, attacks) for a in attacks if a.label in planned.requires]
    return {fingerprint: leaf for base in bases for fingerprint, leaf in base.items()}


def combining(
    planned: PlannedAttack,
    cls: type[Attack],
    params: Any,
    bases: Sequence[PlannedAttack],
    attacks: Sequence[PlannedAttack],
) -> PlannedAttack:
    """A row that combines others: its identity is theirs and how they are scored, its price the sum of theirs."""
    scored = [[base.label, base.params] for base in bases]
    leaves = {f: leaf.queries for base in bases for f, leaf in behind(base, attacks).items()}
    return planned.model_copy(
        update={
            "requires": tuple(base.label for base in bases),
            "queries": sum(leaves.values()),
            "fingerprint": identity(cls, params, [json.dumps(scored), *(base.fingerprint for base in bases)]),
            "definition": identity(cls, params, [json.dumps(scored), *(base.definition for base in bases)]),
        }
    )


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


def changed(cls: type[Attack], label: str, params: Any, kind: str) -> tuple[str, ...]:
    """Parameters that differ from the label's own, for the reader of a table."""
    parts = Label.parse(label)
    own_values = {**cls.presets.get(parts.preset, {})} | ({"encoder": parts.encoder} if parts.encoder else {})
    own = cls.Params.model_validate(own_values).resolved(kind)
    return tuple(name for name in cls.Params.model_fields if getattr(own, name) != getattr(params, name))


def calibration_gap(samples: Sequence[Sample]) -> str | None:
    """Why the calibration split cannot be used, or None if it holds members and non-members."""
    return gap_of({s.member for s in samples if s.split == "calibration"})


def gap_of(calibrating: Collection[bool | None]) -> str | None:
    """As `calibration_gap`, from the labels of the calibration split."""
    labels = set(calibrating) - {None}
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
