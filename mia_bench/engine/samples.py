"""The samples of a run, column by column, in the order they are taken."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mia_bench.dataset import Sample, Split
from mia_bench.errors import UnavailableError
from mia_bench.result import Task


class SampleTable(BaseModel):
    """The samples, column by column, in the order they are taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: tuple[str, ...]
    digest: tuple[str, ...]
    split: tuple[Split, ...]
    member: tuple[bool | None, ...]
    group: tuple[str, ...]
    captioned: tuple[bool, ...]
    content: tuple[str, ...] = ()
    """Hash of each image; empty where that is unknown: of imported scores, and in plans of earlier versions."""

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
            content=tuple(s.content for s in samples),
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

    @property
    def suspects(self) -> NDArray[np.bool_]:
        """Audited samples of unknown membership; without such, those labelled members. bool `(N,)`."""
        unknown = self.audit & ~self.labelled
        return unknown if unknown.any() else self.audit & self.is_member

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
