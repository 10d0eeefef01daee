"""What attacks are calibrated on: the run's own calibration set, or the labelled samples of another run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mia_bench.engine.plan import Plan, PlannedAttack, read_plan
from mia_bench.engine.samples import SampleTable
from mia_bench.errors import NothingError, UnavailableError, UsageError
from mia_bench.result import Shadow
from mia_bench.store import Store, Terms


@dataclass(frozen=True)
class Other:
    """Another run, usually on a shadow model, whose labelled samples stand in for the calibration set."""

    record: Shadow
    plan: Plan
    store: Store

    @classmethod
    def read(cls, folder: Path, named: str = "") -> Other:
        """The run in a folder, which was named so.

        Raises:
            UnavailableError: There is none, or it cannot be read.
            UsageError: It holds imported scores.
        """
        store = Store(folder)
        plan = read_plan(store)
        if plan.sources or plan.seed is None:
            why = "it holds imported scores; thresholds and classifiers are fitted on what an attack measured"
            raise UsageError(f"--calibrate-on {named or folder}", why, "name a folder that `mia-bench run` wrote")
        record = Shadow(
            run=named or str(folder),
            dataset=plan.dataset,
            dataset_revision=plan.dataset_revision,
            target=plan.target,
            target_fingerprint=plan.target_fingerprint,
            target_options=plan.target_options,
            samples_hash=plan.samples.digest_of_all,
            seed=plan.seed,
            noise=plan.noise,
            dtype=plan.dtype,
            latent=plan.latent,
        )
        return cls(record, plan, store)

    def calibrating(self, plan: Plan, own: Path) -> Plan:
        """The plan, stored in the folder `own`, with it."""
        where = os.path.relpath(self.store.folder.resolve(), own.resolve())  # from there, so that both can move
        return plan.model_copy(update={"shadow": self.record, "shadow_folder": where})

    def check(self, plan: Plan) -> None:
        """Whether it can calibrate a run.

        Raises:
            UsageError: It read other captions, or its folder holds another run now than when that was planned.
            NothingError: All its labelled samples are scored by the run too.
        """
        what = f"--calibrate-on {self.record.run}"
        if self.plan.captions != plan.captions:
            why = f"it took captions `{self.plan.captions}`, this run `{plan.captions}`"
            raise UsageError(what, why, "give both runs the same --captions")
        known = _known(self.plan.samples)
        if not known.any():
            raise NothingError(what, "it has no labelled samples", "calibrate on a run of which members are known")
        left = known & ~scored_in(plan.samples, self.plan.samples)
        if not left.any():
            why = f"all its {int(known.sum())} labelled samples are audited by this run too"
            raise NothingError(what, why, "calibrate on a run on other samples, or on more of them")

    def find(self, plan: Plan, planned: PlannedAttack, like: Terms) -> Borrowed | str:
        """Its measurements for one attack of a run, or why there are none that fit."""
        table, run = self.plan.samples, self.record.run
        theirs = next((a for a in self.plan.attacks if a.definition == planned.definition and not a.requires), None)
        if theirs is None:
            named = any(a.label == planned.label for a in self.plan.attacks)
            return (
                f"{planned.label} has another definition in {run}: other parameters, encoder weights or version"
                if named
                else f"{run} has no {planned.label}; run it there too"
            )
        found, terms = self.store.terms(theirs.fingerprint, table.pairs)
        usable = found & _known(table) & table.first(planned.samples)
        reserved = scored_in(plan.samples, table)
        kept = usable & ~reserved
        shapes = {name: values.shape[1:] for name, values in like.items()}
        if found.any() and {name: values.shape[1:] for name, values in terms.items()} != shapes:
            return f"what {planned.label} measures of {self.record.target} in {run} has another shape than here"
        member = table.is_member[kept]
        left_out = int((usable & reserved).sum())
        if not (member.any() and (~member).any()):
            kind = "non-members" if member.any() else "members" if len(member) else "samples"
            also = f"; {left_out} are audited by this run too" if left_out else ""
            return f"no labelled {kind} of {run} are measured and left for {planned.label}{also}"
        rows = np.flatnonzero(kept)
        return Borrowed(
            {name: values[kept[found]] for name, values in terms.items()},
            tuple(f"calibrate-on:{table.id[i]}" for i in rows),  # its ids may be those of own calibration samples
            tuple(table.group[i] for i in rows),
            member,
            left_out,
        )


@dataclass(frozen=True)
class Borrowed:
    """Labelled measurements of another run: `(n, ...)` by term, with ids, groups and labels of length n."""

    terms: Terms
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    member: NDArray[np.bool_]
    left_out: int


def scored_in(ours: SampleTable, theirs: SampleTable) -> NDArray[np.bool_]:
    """Which samples of another run this one scores too, bool `(N,)`: by id, image, or group of near-duplicates.

    An image is recognised by its bytes, whatever its id and caption. Not recognised: near-duplicates (other sizes,
    crops, encodings) without a common group, and images of runs by earlier versions, which are known with their
    caption only.
    """
    scored = [i for i, split in enumerate(ours.split) if split != "calibration"]
    known = [({column[i] for i in scored} - {""}, other) for column, other in _identities(ours, theirs)]
    return np.array([any(other[i] in seen for seen, other in known) for i in range(len(theirs.id))], dtype=bool)


def _identities(ours: SampleTable, theirs: SampleTable) -> list[tuple[Sequence[str], Sequence[str]]]:
    """Columns that are equal for the same sample, of both."""
    images = [(ours.content, theirs.content)] if ours.content and theirs.content else []
    return [(ours.id, theirs.id), (ours.digest, theirs.digest), (ours.group, theirs.group), *images]


def _known(table: SampleTable) -> NDArray[np.bool_]:
    """Labelled members and non-members, without images that were seen far more often than other members."""
    usual: NDArray[np.bool_] = np.array([split != "memorised" for split in table.split], dtype=bool)
    return usual & table.labelled


def calibrating_run(folder: Path | None, plan: Plan, own: Path) -> Plan:
    """A plan that is calibrated on another run.

    Args:
        folder: The other run; None leaves the plan as it is, the run's own folder `own` means its calibration set.
        plan: What is scored.
        own: Where that is stored.

    Raises:
        MiaBenchError: The other run cannot be read, or cannot calibrate this one.
    """
    if folder is None:
        return plan
    if folder.resolve() == own.resolve():
        return plan.model_copy(update={"shadow": None, "shadow_folder": ""})
    other = Other.read(folder)
    other.check(plan)
    return other.calibrating(plan, own)


def other_of(plan: Plan, own: Path) -> Other | None:
    """The run that a plan, stored in the folder `own`, is calibrated on.

    Raises:
        UnavailableError: It cannot be read any more.
        UsageError: It is another run now.
    """
    if plan.shadow is None:
        return None
    named = plan.shadow.run
    fix = f"name it, or another one: `mia-bench score {own} --calibrate-on RUN`"
    try:
        other = Other.read(own.resolve() / plan.shadow_folder if plan.shadow_folder else Path(named), named)
    except UnavailableError as error:
        raise UnavailableError(f"--calibrate-on {named}, as {own} was planned", str(error), fix) from error
    if other.record != plan.shadow:
        changed = [n for n in type(plan.shadow).model_fields if getattr(plan.shadow, n) != getattr(other.record, n)]
        why = f"it is not the run any more that was planned with: {', '.join(changed)}"
        raise UsageError(f"run {named}", why, fix)
    other.check(plan)
    return other
