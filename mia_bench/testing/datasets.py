"""The checks of datasets."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from mia_bench.dataset import Dataset, Sample
from mia_bench.near import dhash
from mia_bench.plugins import Registry
from mia_bench.testing.common import Argument, Placed, check_name, check_summary, loads
from mia_bench.testing.suite import Case, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

OPENED = 24  # images that are decoded, at most
SPLITS = ("audit", "calibration", "memorised")


class DatasetCase(Case):
    """One dataset.

    Args:
        plugin: Its class.
        argument: What follows its name, or a function that makes a small copy in a folder and returns the argument.
    """

    kind = "dataset"

    def __init__(self, plugin: type[Dataset], argument: Argument = "") -> None:
        self.plugin, self.placed = plugin, Placed(argument)

    def opened(self) -> Dataset:
        """A new instance."""
        dataset: Dataset = self.plugin(self.placed.argument)
        return dataset

    @cached_property
    def samples(self) -> Sequence[Sample]:
        """As an instance gives them."""
        return self.opened().samples()

    @property
    def some(self) -> list[Sample]:
        """Those whose images are decoded: the first in the order that `--limit` takes."""
        return sorted(self.samples, key=lambda s: s.order)[:OPENED]


def metadata(case: DatasetCase) -> None:
    """It says what it is: a summary of one line, how members and non-members were made, biases, licence, targets."""
    check_name(case)
    check_summary(case)
    meta, known = case.plugin.meta, Registry.load().targets
    for field in ("construction", "biases", "licence"):
        if not getattr(meta, field).strip():
            raise Fault(f"meta.{field} is empty", f"say it in a sentence, or that it is not known: meta.{field}")
    for target in meta.targets:
        if target not in known:
            fix = "name targets as `mia-bench list targets` does, or none: users then give --target"
            raise Fault(f"meta.targets names {target!r}, which no plugin brings", fix)


def ids(case: DatasetCase) -> None:
    """There are samples; each has an id of its own, the same whenever they are listed."""
    found = [s.id for s in case.samples]
    if not found:
        raise Fault("no samples", "give a small copy with some: conformance(..., argument=...)")
    if odd := [i for i in found if not isinstance(i, str) or not i.strip()]:
        raise Fault(f"the id {odd[0]!r}", "an id is a text")
    if len(set(found)) != len(found):
        twice = next(i for i in found if found.count(i) > 1)
        raise Fault(f"the id {twice!r} occurs {found.count(twice)} times", "add the file's place or row to it")
    again = [s.id for s in case.opened().samples()]
    if sorted(again) != sorted(found):
        changed = next(iter(set(found) ^ set(again)))
        raise Fault(f"listed again, {changed!r} is there once only", "make ids of the data, not of counters or chance")


def digests(case: DatasetCase) -> None:
    """Listed again, each sample has the same content hash, caption, label, split and group."""
    again = {s.id: s for s in case.opened().samples()}
    for sample in case.samples:
        other = again.get(sample.id)
        for field in ("content", "caption", "member", "split", "group", "word_weights", "near", "digest"):
            if other is not None and getattr(sample, field) != getattr(other, field):
                found = f"{field} of sample {sample.id!r} is {getattr(sample, field)!r}, then {getattr(other, field)!r}"
                raise Fault(found, "read it from the data; a random choice takes a seed from the argument")
        if not re.fullmatch(r"[0-9a-f]{64}", sample.content):
            fix = "content is the sha256, in hex, of the image's file or pixels: measurements are reused by it"
            raise Fault(f"content of sample {sample.id!r} is {sample.content!r}", fix)


def splits(case: DatasetCase) -> None:
    """Samples are in a split that exists, and a group is in one split: near-duplicates never straddle two."""
    places: dict[str, dict[str, str]] = defaultdict(dict)
    for sample in case.samples:
        if sample.split not in SPLITS:
            raise Fault(f"sample {sample.id!r} is in the split {sample.split!r}", f"splits are {', '.join(SPLITS)}")
        if sample.member not in (True, False, None):
            raise Fault(f"member of sample {sample.id!r} is {sample.member!r}", "it is True, False, or None if unknown")
        places[sample.group or sample.id].setdefault(sample.split, sample.id)
    for group, found in places.items():
        if len(found) > 1:
            where = ", ".join(f"{split} ({i!r})" for split, i in found.items())
            raise Fault(f"the group {group!r} is in {where}", "put all samples of a group into one split")


def laziness(case: DatasetCase) -> None:
    """`samples()` decodes no image: a large dataset is listed in a moment, and a damaged file costs one sample."""
    dataset = case.opened()
    with _decoding_counted() as decoded:
        dataset.samples()
    if decoded:
        fix = "give Sample a path, or a function that reads the image when it is called"
        raise Fault(f"{len(decoded)} images were decoded while samples were listed", fix)


@contextmanager
def _decoding_counted() -> Iterator[list[Any]]:
    """What Pillow decodes within, or is given decoded."""
    from PIL import Image, ImageFile

    seen: list[Any] = []
    load, made = ImageFile.ImageFile.load, Image.fromarray

    def counted_load(self: Any) -> Any:
        seen.append(self)
        return load(self)

    def counted_made(*arguments: Any, **options: Any) -> Any:
        seen.append(arguments[0])
        return made(*arguments, **options)

    with (
        mock.patch.object(ImageFile.ImageFile, "load", counted_load),
        mock.patch.object(Image, "fromarray", counted_made),
    ):
        yield seen


def images(case: DatasetCase) -> None:
    """Images decode to the same RGB pixels every time; equal content hashes mean equal pixels."""
    pixels: dict[str, bytes] = {}
    for sample in case.some:
        first, again = sample.open(), sample.open()
        if first.mode != "RGB" or first.size != again.size or first.tobytes() != again.tobytes():
            raise Fault(f"sample {sample.id!r} opens as another image the second time", "read it from the data")
        now = repr(first.size).encode() + first.tobytes()
        if pixels.setdefault(sample.content, now) != now:
            fix = "make content of the image's own bytes: what was measured of one would be taken for the other"
            raise Fault(f"the image of sample {sample.id!r} has the content hash of another image", fix)
        if sample.near is not None and sample.near != (true := dhash(first)):
            fix = "near is mia_bench.near.dhash of the decoded image; leave it out if it is not at hand"
            raise Fault(f"near of sample {sample.id!r} is {sample.near:#x}, its image's hash {true:#x}", fix)


def word_weights(case: DatasetCase) -> None:
    """Where a sample has word weights, there is one for each word of its caption, finite."""
    for sample in case.samples:
        if (weights := sample.word_weights) is None:
            continue
        words = (sample.caption or "").split(" ")
        if len(weights) != len(words) or not np.isfinite(weights).all():
            found = f"sample {sample.id!r} has {len(weights)} weights for {len(words)} words: {weights[:6]}"
            raise Fault(found, "give one number for each part of caption.split(' '), or None")


CHECKS = (loads, metadata, ids, digests, splits, laziness, images, word_weights)
