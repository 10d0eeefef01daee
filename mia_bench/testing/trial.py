"""One run of one attack on a tiny target, by the engine itself; what two runs of it disagree about."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mia_bench.attack import Attack, Capability
from mia_bench.dataset import Dataset, DatasetMeta, Sample
from mia_bench.encoder import Encoder
from mia_bench.engine.label import Label
from mia_bench.engine.plan import read_plan
from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.run import run
from mia_bench.plugins import Registry
from mia_bench.result import Result, Row
from mia_bench.store import Store
from mia_bench.testing.common import module_of, register
from mia_bench.testing.suite import Fault
from mia_bench.testing.tiny import StubEncoder, TinyTarget

Values = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Trial:
    """What came of a run.

    Attributes:
        ids: Samples that were measured, length N.
        terms: What `measure` returned, `(N, ...)` each, in the order of `ids`.
        scores: Sample id -> score.
        row: Of the table.
        failed: What the run says of samples that it lost.
    """

    ids: tuple[str, ...]
    terms: Values
    scores: Mapping[str, float]
    row: Row
    failed: tuple[str, ...]

    def differs(self, other: Trial) -> str:
        """What the other run measured or scored otherwise, by a single bit; nothing if all is equal."""
        for name, values in self.terms.items():
            mine, others = (
                dict(zip(self.ids, values, strict=True)),
                dict(zip(other.ids, other.terms[name], strict=True)),
            )
            if changed := [i for i in mine if i not in others or not np.array_equal(mine[i], others[i])]:
                return _said(f"term {name!r}", mine, others, changed)
        if changed := [i for i in self.scores if self.scores[i] != other.scores.get(i)]:
            return _said("the score", self.scores, other.scores, changed)
        return ""

    def distance(self, other: Trial) -> tuple[float, str]:
        """The largest difference from the other run's terms, relative to its largest value, and in which term it is.

        An attack that combines others has no terms; there it is that of its scores.
        """
        mine, others = self.terms, other.terms
        if not mine:  # it combines others' scores
            mine = {"score": np.array([*self.scores.values()])}
            others = {"score": np.array([other.scores[i] for i in self.scores])}
        found = {
            name: float(np.abs(values - others[name]).max() / max(np.abs(values).max(), 1e-300))
            for name, values in mine.items()
        }
        worst = max(found, key=found.__getitem__)
        return found[worst], worst


def _said(what: str, mine: Mapping[str, Any], others: Mapping[str, Any], changed: Sequence[str]) -> str:
    first = changed[0]
    values = [np.ravel(side[first]) if first in side else np.empty(0) for side in (mine, others)]
    size = min(map(len, values))
    place = int(np.flatnonzero(values[0][:size] != values[1][:size])[0]) if size else 0
    texts = [f"{v[place]:.9g}" if len(v) else "missing" for v in values]
    return f"{what} of sample {first!r} is {texts[0]}, then {texts[1]}; {len(changed)} of {len(mine)} samples differ"


def tried(
    cls: type[Attack],
    label: str,
    samples: Sequence[Sample],
    *,
    halves: bool = False,
    seeded: int = 0,
    **options: Any,
) -> Trial:
    """Run an attack on these samples and `TinyTarget`.

    Args:
        cls: The attack.
        label: Its name, with a preset.
        samples: What the dataset holds.
        halves: Interrupt the run half way, then run again into the same folder.
        seeded: What the global generators are set to; no score may depend on them.
        options: Of the run.

    Raises:
        Fault: The attack yields no row.
    """
    registry = Registry()
    register(registry, cls)
    registry.attacks.update(required_by(cls))
    registry.targets["tiny"], registry.datasets["given"] = TinyTarget, dataset_of(samples)
    every = list(registry.attacks.values())
    registry.encoders.update(stubs({spec for one in every for spec in encoders_of(one)}))
    needs = {n for one in every for p in ("", *one.presets) for n in made(one, p, "latent").needs()}
    reference = "tiny:8" if Capability.REFERENCE in needs else None
    defaults = {"device": "cpu", "threads": 1, "rows": 16, "batch": 8, "dataset": "given", "target": "tiny"}
    with tempfile.TemporaryDirectory(prefix="mia-bench-conformance-") as folder, _seeded(seeded):
        given = RunOptions(attacks=label, out=Path(folder), reference=reference, **{**defaults, **options})
        if halves:
            _interrupt(registry, given)
        return outcome(run(registry, given), Store(Path(folder)), label)


def outcome(result: Result, store: Store, label: str) -> Trial:
    """What a run wrote of one attack.

    Raises:
        Fault: It has no scores.
    """
    import pyarrow.parquet as pq

    row = next(r for r in result.rows if Label.parse(r.label).bare == label)
    if row.status != "ok":
        raise Fault(row.reason or row.status, "fix what it says; MIA_BENCH_DEBUG=1 prints the traceback")
    plan = read_plan(store)
    have, terms = store.terms(row.fingerprint, plan.samples.pairs)
    ids = tuple(i for i, known in zip(plan.samples.id, have, strict=True) if known)
    own = Label.parse(row.label)
    kept = [r for r in pq.read_table(store.folder / "scores.parquet").to_pylist() if r["preset"] == own.preset]
    scores = {r["sample_id"]: r["score"] for r in kept if r["attack"] == own.unset}
    return Trial(ids, dict(terms), scores, row, tuple(f"{f.sample}: {f.reason}" for f in result.failures))


def _interrupt(registry: Registry, options: RunOptions) -> None:
    """A run that is stopped after half of its batches."""

    def stop(event: Any) -> None:
        if 2 * event.batch >= event.batches:
            raise KeyboardInterrupt

    plugin = registry.add("interrupt", "conformance", "", lambda: module_of(mia_bench_batch_measured=stop))
    try:
        run(registry, options)
    except KeyboardInterrupt:
        registry.manager.unregister(name=f"{plugin.origin}:{plugin.name}")


def dataset_of(samples: Sequence[Sample]) -> type[Dataset]:
    """A dataset of these samples."""
    held = tuple(samples)

    class Given(Dataset):
        meta = DatasetMeta(name="given", summary="given")

        def samples(self) -> Sequence[Sample]:
            return held

    return Given


def made(cls: type[Attack], preset: str, kind: str) -> Attack:
    """An attack with the parameters of a preset, for one kind of target."""
    return cls(cls.Params.model_validate(cls.presets[preset] if preset else {}).resolved(kind))


def required_by(cls: type[Attack]) -> dict[str, type[Attack]]:
    """What its defaults and presets combine, by name: attacks that are installed, as a user has them beside it.

    Raises:
        Fault: One is not.
    """
    found: dict[str, type[Attack]] = {}
    names = {Label.parse(text).name for p in ("", *cls.presets) for text in made(cls, p, "latent").requires()}
    if names - {cls.meta.name}:
        installed = Registry.load().attacks
        for name in sorted(names - {cls.meta.name}):
            if name not in installed:
                raise Fault(f"it requires {name!r}, which is not installed", "require attacks that users have")
            found |= {name: installed[name]} | required_by(installed[name])
    return found


def encoders_of(cls: type[Attack]) -> set[str]:
    """Every encoder that its defaults and presets name, on either kind of target."""
    return {s for kind in ("pixel", "latent") for p in ("", *cls.presets) for s in made(cls, p, kind).encoders()}


def stubs(specs: set[str]) -> dict[str, type[Encoder]]:
    """A stub for each name, so that no weights are needed."""
    names = {spec.partition(":")[0] for spec in specs}
    return {
        name: type("Named", (StubEncoder,), {"meta": StubEncoder.meta.model_copy(update={"name": name})})
        for name in names
    }


@contextmanager
def _seeded(number: int) -> Iterator[None]:
    """Set the global generators, and restore them."""
    import torch

    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
