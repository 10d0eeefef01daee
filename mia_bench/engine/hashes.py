"""Perceptual hashes of samples' images: carried by the dataset, remembered, or computed and then remembered."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from mia_bench.dataset import Sample
from mia_bench.engine.line_cache import SHA256, LineCache
from mia_bench.errors import SampleError
from mia_bench.near import dhash

A = TypeVar("A")
B = TypeVar("B")
CACHE = "dhash-2"  # raise the number when `dhash` or what `Sample.open` returns changes
HASH = re.compile(r"[0-9a-f]{16}")
PORTION = 256  # images between two writes to the cache
MAX_THREADS = 16
EVERY_S = 10.0
logger = logging.getLogger("mia_bench")


class HashCache:
    """Hashes by the sha256 of the image."""

    def __init__(self) -> None:
        self.lines = LineCache(CACHE)

    def get(self, content: str) -> int | None:
        """The hash of an image, if it is remembered."""
        text = self.lines.known.get(content, "")
        return int(text, 16) if HASH.fullmatch(text) else None

    def add(self, hashes: Mapping[str, int]) -> None:
        """Remember these."""
        self.lines.add({content: f"{number:016x}" for content, number in hashes.items()})


def hashes_of(samples: Iterable[Sample]) -> Mapping[str, int]:
    """Sample id -> hash of its image; without those that cannot be read."""
    samples = list(samples)
    cache, known = HashCache(), {s.id: s.near for s in samples if s.near is not None}
    lacking: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.id in known:
            continue
        if (found := cache.get(sample.content)) is not None:
            known[sample.id] = found
        else:
            key = sample.content if SHA256.fullmatch(sample.content) else f"id {sample.id}"
            lacking.setdefault(key, []).append(sample)
    for portion in reading(list(lacking.values()), lambda same: _hash(same[0])):
        made = [(same, number) for same, number in portion if number is not None]
        cache.add({same[0].content: number for same, number in made})
        known |= {sample.id: number for same, number in made for sample in same}
    return known


def _hash(sample: Sample) -> int | None:
    try:
        return dhash(sample.open())
    except SampleError:
        return None  # whoever needs the image itself says why


def reading(items: Sequence[A], read: Callable[[A], B]) -> Iterator[list[tuple[A, B]]]:
    """Apply `read`, which decodes an image, to every item, on all cores; in order, in portions.

    Says on the log how far it is when it takes long.
    """
    began = last = time.monotonic()
    done = 0
    with ThreadPoolExecutor(min(MAX_THREADS, len(os.sched_getaffinity(0)))) as pool:
        for start in range(0, len(items), PORTION):
            portion = items[start : start + PORTION]
            yield list(zip(portion, pool.map(read, portion), strict=True))
            done += len(portion)
            if (now := time.monotonic()) - last > EVERY_S:
                last = now
                left = (now - began) / done * (len(items) - done)
                logger.warning("%s of %s images read, %.0f s left", f"{done:,}", f"{len(items):,}", left)
