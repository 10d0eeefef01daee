"""Dividing the samples of a dataset that leaves it to us: a calibration set, classes of equal size.

What comes out depends on the samples and the seed, not on their order, nor on how many of them a run takes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mia_bench.dataset import Sample
from mia_bench.engine.hashes import hashes_of
from mia_bench.errors import UsageError
from mia_bench.near import NEAR, near_groups
from mia_bench.result import Division

CLASSES = {True: "members", False: "non-members"}


def divide(
    samples: Sequence[Sample], fraction: float | None, balance: bool, seed: int | None, dataset: str
) -> tuple[Sequence[Sample], Division | None]:
    """Set samples of the audit set apart to calibrate on, then balance the classes of each split, if asked to.

    Samples that share a group, or are near-duplicates, stay on one side and share a group from then on. Memorised
    samples, unlabelled ones and what belongs to them are not set apart.

    Args:
        samples: All of the dataset.
        fraction: Share of each class to set apart, between 0 and 1, or None.
        balance: Whether to cut the larger class of each split to the size of the smaller.
        seed: Of both; 0 if None.
        dataset: Its name, for messages.

    Returns:
        The samples, and what was done; None if nothing was asked for.

    Raises:
        UsageError: The dataset has a calibration set, lacks a class, or a class is too small.
    """
    if fraction is None and not balance:
        if seed is not None:
            raise UsageError(f"--split-seed {seed}", "nothing is split", "add --calibration FRACTION or --balance")
        return samples, None
    key = f"{seed or 0}"
    together, unread = 0, 0
    if fraction is not None:
        _check(samples, fraction, dataset)
        hashes = hashes_of(samples)
        unread = len(samples) - len(hashes)
        groups = joined(samples, hashes)
        samples = grouped(samples, groups)
        together = sum(n for n in Counter(groups.tolist()).values() if n > 1)
        apart = _set_apart(samples, fraction, key, dataset)
        samples = [replace(s, split="calibration") if s.id in apart else s for s in samples]
    if balance:
        samples = _balanced(samples, key, dataset)
    splits = sorted((s.id, s.split) for s in samples if s.split != "memorised")
    counts = Counter(s.member for s in samples if s.split == "calibration")
    return samples, Division(
        calibration=fraction,
        members=counts[True],
        nonmembers=counts[False],
        balance=balance,
        seed=seed or 0,
        near=NEAR,
        together=together,
        unread=unread,
        digest=hashlib.sha256(json.dumps(splits).encode()).hexdigest()[:32],
    )


def joined(samples: Sequence[Sample], hashes: Mapping[str, int]) -> NDArray[np.int64]:
    """Number of each sample's group, int64 `(N,)`: near-duplicates and samples that share a group are in one.

    Args:
        samples: N samples.
        hashes: Sample id -> perceptual hash; a sample without one is near to nothing.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    own = np.unique([s.group or s.id for s in samples], return_inverse=True)[1]
    hashed = [row for row, s in enumerate(samples) if s.id in hashes]
    near = near_groups([hashes[samples[row].id] for row in hashed])
    size = len(samples)
    # Own groups and near-duplicates are the two sides of a graph, samples its edges.
    edges = (np.ones(len(hashed), dtype=bool), (own[hashed], size + near))
    label = connected_components(coo_array(edges, shape=(2 * size, 2 * size)), directed=False)[1]
    groups: NDArray[np.int64] = label[own].astype(np.int64)
    return groups


def _check(samples: Sequence[Sample], fraction: float, dataset: str) -> None:
    what = f"--calibration {fraction:g}"
    if any(s.split == "calibration" for s in samples):
        raise UsageError(what, f"dataset {dataset} has a calibration set of its own", "leave out --calibration")
    counts = Counter(s.member for s in samples if s.split == "audit")
    for member, name in CLASSES.items():
        if not counts[member]:
            why = f"dataset {dataset} has no labelled {name}, and both classes are needed to calibrate"
            raise UsageError(what, why, "leave out --calibration, or label some")
        if not 0 < round(fraction * counts[member]) < counts[member]:
            why = f"of {counts[member]} {name} it leaves none on one side"
            raise UsageError(what, why, "give a fraction nearer to 0.5, or leave out --calibration")


def grouped(samples: Sequence[Sample], groups: NDArray[np.int64]) -> list[Sample]:
    """Each sample with the first of its group's names."""
    names: dict[int, str] = {}
    for sample, group in zip(samples, groups.tolist(), strict=True):
        own = sample.group or sample.id
        names[group] = min(names.get(group, own), own)
    return [replace(s, group=names[group]) for s, group in zip(samples, groups.tolist(), strict=True)]


def _set_apart(samples: Iterable[Sample], fraction: float, key: str, dataset: str) -> set[str]:
    """Ids of the calibration set: groups in the order of a keyed hash, while they fit each class's share."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.group].append(sample)
    counts = Counter(s.member for group in groups.values() for s in group if s.split == "audit")
    room: dict[bool | None, int] = {member: round(fraction * counts[member]) for member in CLASSES}
    apart: set[str] = set()
    for group in sorted(groups.values(), key=lambda g: _keyed(key, min(s.id for s in g))):
        wanted = Counter(s.member for s in group)
        if all(s.split == "audit" for s in group) and all(room.get(m, 0) >= n for m, n in wanted.items()):
            apart |= {s.id for s in group}
            for member, n in wanted.items():
                room[member] -= n
    for member, name in CLASSES.items():
        if room[member] == round(fraction * counts[member]):
            why = f"no {name} of dataset {dataset} can be set apart: near-duplicates link them all"
            raise UsageError(f"--calibration {fraction:g}", why, "give a larger fraction, or leave out --calibration")
    return apart


def _balanced(samples: Sequence[Sample], key: str, dataset: str) -> list[Sample]:
    """Without as many of the larger class of each split as it has more; the others stay in their order."""
    dropped: set[str] = set()
    for split in ("audit", "calibration"):
        classes = {m: [s.id for s in samples if s.split == split and s.member is m] for m in CLASSES}
        size = min(map(len, classes.values()))
        if not size:
            if split == "audit":
                lacking = " and ".join(CLASSES[m] for m, ids in classes.items() if not ids)
                why = f"the audit set of dataset {dataset} has no labelled {lacking}"
                raise UsageError("--balance", why, "leave out --balance, or label some")
            continue  # such a calibration set is of no use, whatever its size
        for ids in classes.values():
            dropped |= set(sorted(ids, key=lambda i: _keyed(key, i))[size:])
    return [s for s in samples if s.id not in dropped]


def _keyed(key: str, name: str) -> bytes:
    return hashlib.sha256(f"{key}:{name}".encode()).digest()
