"""What an audit runs on: suspects beside images known to be unseen, near-duplicates among them found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mia_bench.dataset import Dataset, Sample
from mia_bench.engine.hashes import hashes_of
from mia_bench.engine.named import open_dataset, pair
from mia_bench.engine.prepare import DEFAULT_DATASET
from mia_bench.engine.splits import grouped, joined
from mia_bench.errors import NothingError
from mia_bench.plugins import Registry

NAME = "audit"
BESIDE = " beside "
UNSEEN = "put images that the model cannot have seen, and that are like the suspects otherwise, into nonmembers/"


def audited(registry: Registry, dataset: str | None, target: Any, suspects: str | None) -> str:
    """Make a dataset of the registry and return what names it.

    Args:
        registry: All plugins; gets a dataset `audit`.
        dataset: Holds the images known to be unseen, and the suspects if these are not named; the target's own if None.
        target: The model under audit.
        suspects: A dataset of suspects. Then `dataset` lends its non-members, or all its images if none has a label.

    Raises:
        UsageError: A name is unknown, or the dataset labels other targets.
    """
    named, _ = pair(registry, dataset, target, DEFAULT_DATASET)
    return _registered(registry, named, suspects)


def reopened(registry: Registry, spec: str) -> Dataset:
    """The dataset of a run, which may be of an audit.

    Raises:
        UsageError: A name is unknown.
    """
    if spec.startswith(f"{NAME}:") and NAME not in registry.datasets:
        suspects, _, named = spec.removeprefix(f"{NAME}:").rpartition(BESIDE)
        _registered(registry, named, suspects or None)
    return open_dataset(registry, spec)


def _registered(registry: Registry, named: str, suspects: str | None) -> str:
    base = open_dataset(registry, named)
    others = open_dataset(registry, suspects) if suspects else None
    known = base.meta.model_copy(update={"name": NAME, "argument": f"SUSPECTS{BESIDE}DATASET"})

    class Audited(Dataset):
        """These two."""

        meta = known

        @property
        def revision(self) -> str:
            both = [one.revision for one in (others, base) if one]
            return BESIDE.join(revision or "not named" for revision in both) if any(both) else ""

        @property
        def targets(self) -> tuple[str, ...]:
            return base.targets

        def fetch(self, limit: int | None = None, allow_origin: tuple[str, int] | None = None) -> None:
            for one in filter(None, (base, others)):
                one.fetch(limit, allow_origin)

        def samples(self) -> Sequence[Sample]:
            samples = base.samples()
            if others:
                samples = [*_suspects(others.samples()), *_unseen(samples)]
            _check(samples, suspects or named)
            return grouped(samples, joined(samples, hashes_of(samples)))

    registry.datasets[NAME] = Audited
    return f"{NAME}:{suspects}{BESIDE}{named}" if suspects else f"{NAME}:{named}"


def _suspects(samples: Sequence[Sample]) -> list[Sample]:
    """All are of unknown membership, whatever they are labelled, but known non-members stay such."""
    return [
        replace(
            s,
            id=f"suspects/{s.id}",
            group=f"suspects/{s.group}" if s.group else "",
            split="audit",
            member=False if s.member is False else None,
        )
        for s in samples
    ]


def _unseen(samples: Sequence[Sample]) -> list[Sample]:
    """Non-members, with the calibration set; where nothing has a label, whoever names the images says it of all."""
    if all(s.member is None for s in samples):
        return [replace(s, member=False, split="audit") for s in samples]
    return [s for s in samples if s.member is False or (s.split == "calibration" and s.member is not None)]


def _check(samples: Sequence[Sample], suspects: str) -> None:
    """Before anything is measured."""
    if not any(s.split == "audit" and s.member is not False for s in samples):
        raise NothingError(f"dataset {suspects}", "it holds no suspects", "name them with --suspects DATASET")
    if not any(s.member is False for s in samples):
        raise NothingError(f"dataset {suspects}", "no image is known to be unseen: nothing says what is usual", UNSEEN)
