"""The expensive half: a batch of samples through the target becomes a shard."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mia_bench.dataset import Sample
from mia_bench.diffusion.foreseen import ForeseenNoise
from mia_bench.diffusion.noise import NoiseSource, SaltedNoise
from mia_bench.engine.blame import fault
from mia_bench.engine.loader import Loaded, Loader
from mia_bench.engine.plan import Plan, PlannedAttack
from mia_bench.errors import BrokenPluginError, MiaBenchError, NetworkError, SampleError, UnavailableError, brief
from mia_bench.executor import Report, Task
from mia_bench.store import Store
from mia_bench.trace import span

if TYPE_CHECKING:
    from mia_bench.batch import Batch
    from mia_bench.engine.prepare import Prepared
    from mia_bench.target import Target

Measurement = dict[str, NDArray[np.float64]]


@dataclass
class Outcome:
    """What went wrong while measuring, without stopping the rest.

    Attributes:
        samples: (sample id, label or None for all attacks) -> reason.
        attacks: label -> why it failed for this run.
    """

    samples: dict[tuple[str, str | None], str] = field(default_factory=dict)
    attacks: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """Samples that lack the same measurements."""

    attacks: tuple[PlannedAttack, ...]
    samples: tuple[Sample, ...]


def lacking(plan: Plan, store: Store) -> dict[tuple[str, ...], list[str]]:
    """Ids of the samples that are not fully in the store yet, by the fingerprints that they lack."""
    measuring = [a for a in plan.attacks if not a.requires]  # others come of their scores
    caption = {a.fingerprint: a.caption == "required" for a in measuring}
    wanted: dict[str, NDArray[np.bool_]] = {}
    for attack in measuring:  # presets of one identity may want more or fewer samples
        kept = plan.samples.first(attack.samples)
        wanted[attack.fingerprint] = kept | wanted.get(attack.fingerprint, False)
    control = {a.fingerprint: a.control for a in measuring}
    done = store.done(caption)
    groups: dict[tuple[str, ...], list[str]] = {}
    table = plan.samples
    columns = zip(table.id, table.digest, table.split, table.captioned, strict=True)
    for row, (sample_id, digest, split, captioned) in enumerate(columns):
        missing = tuple(
            fingerprint
            for fingerprint in done
            if wanted[fingerprint][row]
            and (sample_id, digest) not in done[fingerprint]
            and (captioned or not caption[fingerprint])
            and (split != "calibration" or not control[fingerprint])  # a control has no use for these
        )
        if missing:
            groups.setdefault(missing, []).append(sample_id)
    return groups


def pending(plan: Plan, samples: Mapping[str, Sample], store: Store, owned: Container[str] | None = None) -> list[Work]:
    """What is not in the store yet, grouped by the attacks that lack it.

    Attacks with one identity (presets that differ only in scoring) are measured once, under the first's label.

    Args:
        plan: What to do.
        samples: id -> sample.
        store: What is done.
        owned: Ids of the only samples that count; all if None.
    """
    first = {attack.fingerprint: attack for attack in reversed(plan.attacks)}
    found = []
    for missing, ids in lacking(plan, store).items():
        if mine := tuple(samples[i] for i in ids if owned is None or i in owned):
            found.append(Work(tuple(first[f] for f in missing), mine))
    return found


class Measurer:
    """Measures batches and stores them.

    Args:
        prepared: The run; its target is open.
        environment: Recorded with each shard.
        fail_fast: Let the first fault end the run (`-x`).
    """

    def __init__(self, prepared: Prepared, environment: Mapping[str, Any], fail_fast: bool = False) -> None:
        self.plan, self.samples, self.attacks = prepared.plan, prepared.samples, prepared.attacks
        self.target, self.noise, self.store = prepared.target, ForeseenNoise(prepared.noise), prepared.store
        self.environment, self.fail_fast, self.outcome = environment, fail_fast, Outcome()
        self.planned = {attack.label: attack for attack in self.plan.attacks}
        foresee = self.noise.foresee if draws_ahead(self.target.device) else None
        self.loader = Loader(self.target.image_size, foresee)
        self.own: dict[str, float] = {}
        self.pictures: dict[str, float] = {}

    def close(self) -> None:
        """End the thread that loads images."""
        self.loader.close()

    def measure(self, task: Task, ahead: Task | None = None) -> Report:
        """One batch, all its attacks, one shard.

        Args:
            task: The batch.
            ahead: The one that will probably come next.

        Raises:
            MiaBenchError: The target is at fault, nothing can be stored, or `fail_fast`.
        """
        began, self.outcome = time.perf_counter(), Outcome()
        self._batch(task, ahead)
        return Report(task, time.perf_counter() - began, self.outcome.samples, self.outcome.attacks)

    def _batch(self, task: Task, ahead: Task | None) -> None:
        planned = [self.planned[label] for label in task.attacks]
        clock = _Clock()
        denoiser = self.target.denoiser
        networks = self.target.networks
        before = {name: (r.done, r.padding, r.seconds) for name, r in networks.items()}
        asked, backward = denoiser.asked.copy(), denoiser.backward.copy()
        self.own, self.pictures = {}, {}
        loaded = self.loader.load([self.samples[i] for i in task.samples])
        self.noise.turn(task.samples)
        self.loader.ahead([self.samples[i] for i in ahead.samples] if ahead else ())
        for sample, error in loaded.failed:
            self._fail_sample(sample.id, None, error)
        if not (samples := loaded.samples):
            return
        with _its_own_fault("its input could not be made"):
            batch = make_batch(loaded, self.target, self.noise)
        clock.lap("load")
        attacks = [a for a in planned if not a.control]
        found = _on_host([self._timed(a, batch) for a in attacks])
        arrays = {a.fingerprint: self._checked(a, terms, batch) for a, terms in zip(attacks, found, strict=True)}
        clock.lap("measure")
        for attack in planned:
            if attack.control:
                arrays[attack.fingerprint] = self._checked(attack, self._timed(attack, batch), batch)
        clock.lap("controls")
        spent = {
            name: {"rows": r.done - b[0], "padding": r.padding - b[1], "seconds": r.seconds - b[2]}
            for (name, r), b in zip(networks.items(), before.values(), strict=True)
        }
        provenance = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "samples": len(samples),
            "rows": denoiser.rows.rows,
            "seconds": clock.seconds,
            "networks": spent,
            "asked": {a.fingerprint: (denoiser.asked - asked)[a.label] for a in planned},
            "backward": {a.fingerprint: (denoiser.backward - backward)[a.label] for a in planned},
            "own": {a.fingerprint: self.own[a.label] for a in planned},  # host seconds in `measure`
            "pictures": {a.fingerprint: self.pictures[a.label] for a in planned},  # of them, decoding and encoders
            "environment": self.environment,
        }
        if any(arrays.values()):
            self.store.add([s.id for s in samples], [s.digest for s in samples], arrays, provenance, task.name)

    def _timed(self, planned: PlannedAttack, batch: Batch) -> Mapping[str, Any]:
        began, pictures = time.perf_counter(), self._seconds_of_pictures()
        with span("controls" if planned.control else "attacks"):
            terms = self._measure(planned, batch)
        self.own[planned.label] = time.perf_counter() - began
        self.pictures[planned.label] = self._seconds_of_pictures() - pictures
        return terms

    def _seconds_of_pictures(self) -> float:
        """In networks that a query does not run: what only attacks that compare pictures pay for."""
        shared = ("denoiser", "vae", "text")
        return sum(rows.seconds for name, rows in self.target.networks.items() if name not in shared)

    def _measure(self, planned: PlannedAttack, batch: Batch) -> Mapping[str, Any]:
        """One attack on one batch; empty if it failed."""
        import torch

        attack, denoiser = self.attacks[planned.label], self.target.denoiser
        noise, asked = batch.noise, denoiser.asked[planned.label]
        if self.plan.independent_noise and not planned.control:
            batch.noise = SaltedNoise(self.noise, planned.name)
        try:
            with denoiser.asked_by(planned.label), torch.no_grad():
                terms = attack.measure(batch, self.target)
            batch.check_unchanged()
            if not isinstance(terms, Mapping):
                raise TypeError(f"measure returned a {type(terms).__name__}, not terms by name")
            if not terms:
                raise ValueError("measure returned no term")
            return terms
        except NetworkError as error:
            self._fail_attack(planned, error, batch)
        except UnavailableError as error:
            denoiser.asked[planned.label] = asked  # what a failed attempt asked is no part of the attack
            if len(batch) > 1:  # find the sample, and measure the others one by one
                return _stack([self._measure(planned, batch.single(i)) for i in range(len(batch))])
            self._fail_sample(batch.ids[0], planned.label, error)
        except (Exception, SystemExit) as error:  # a fault of this attack must not cost the others their work
            self._fail_attack(planned, error, batch)
        finally:
            batch.noise = noise
            batch.claims.clear()
        return {}

    def _checked(self, planned: PlannedAttack, terms: Mapping[str, Any], batch: Batch) -> Measurement:
        """To float64 on the host; samples with a value that is not finite are set to NaN in every term."""
        label = planned.label
        try:
            arrays = {name: _to_host(name, values, len(batch)) for name, values in terms.items()}
        except Exception as error:
            self._fail_attack(planned, error, batch)
            return {}
        finite = np.ones(len(batch), dtype=bool)
        for array in arrays.values():
            finite &= np.isfinite(array).reshape(len(batch), -1).all(axis=1)
        for row in np.flatnonzero(~finite):
            if (batch.ids[row], label) not in self.outcome.samples:
                self._fail_sample(
                    batch.ids[row],
                    label,
                    SampleError(f"{label} on sample {batch.ids[row]!r}", "the target's output is not finite"),
                )
            for array in arrays.values():
                array[row] = np.nan
        return arrays

    def _fail_attack(self, planned: PlannedAttack, error: BaseException, batch: Batch) -> None:
        with _its_own_fault("it cannot be asked any more"):  # what a device does wrong may show anywhere later
            self.target.probe(batch)
        why = f"measure failed: {fault(error, type(self.attacks[planned.label]))}"
        if self.fail_fast:
            raise BrokenPluginError(
                f"attack {planned.label}", why, "fix it, or go on without it: leave out -x"
            ) from error
        self.outcome.attacks[planned.label] = why

    def _fail_sample(self, sample_id: str, label: str | None, error: UnavailableError) -> None:
        if self.fail_fast:
            raise error
        self.outcome.samples[sample_id, label] = error.why or error.what


@contextmanager
def _its_own_fault(why: str) -> Iterator[None]:
    """What goes wrong within is the target's or its device's fault, no attack's: the run ends, or goes on elsewhere."""
    try:
        yield
    except MiaBenchError:
        raise
    except Exception as error:
        raise NetworkError("the target", f"{why}: {type(error).__name__}: {brief(error)}", "check --device") from error


def draws_ahead(device: str) -> bool:
    """Whether noise is drawn ahead: a CPU has its networks to run meanwhile, and gains nothing (measured)."""
    return not device.startswith("cpu")


def make_batch(loaded: Loaded, target: Target, noise: NoiseSource) -> Batch:
    """What attacks see of some samples; the target forgets the batch before."""
    import torch

    from mia_bench.batch import Batch
    from mia_bench.diffusion.transfer import to_device

    target.forget()
    return Batch(
        [s.id for s in loaded.samples],
        [s.caption for s in loaded.samples],
        loaded.images,
        to_device(torch.from_numpy(loaded.pixels), torch.device(target.device)),
        target,
        noise,
        [s.word_weights for s in loaded.samples],
    )


def _on_host(measured: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """All attacks' terms leave the device in one copy; what cannot is left, for each attack's own check to say."""
    from mia_bench.diffusion.transfer import on_host

    with span("scores"), suppress(Exception):
        return on_host(measured)
    return measured


def _to_host(name: str, values: Any, count: int) -> NDArray[np.float64]:
    if hasattr(values, "detach"):
        values = values.detach() if values.device.type == "cpu" else values.detach().cpu()
    array = np.asarray(values, dtype=np.float64)
    if array.shape[:1] != (count,) or not array.size:
        raise ValueError(f"measure returned {name!r} of shape {array.shape} for {count} samples")
    return array


def _stack(parts: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.float64]]:
    """Measurements of single samples to one of the batch, NaN where one failed."""
    done = [{n: np.asarray(v, dtype=np.float64) for n, v in p.items()} for p in _on_host(parts)]
    like = next((p for p in done if p), {})
    blank = {name: np.full_like(values, np.nan) for name, values in like.items()}
    return {name: np.concatenate([(p or blank)[name] for p in done]) for name in like}


class _Clock:
    """Wall seconds by stage."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now, self.last, self.seconds = now, now(), dict[str, float]()

    def lap(self, stage: str) -> None:
        now = self.now()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self.last
        self.last = now
