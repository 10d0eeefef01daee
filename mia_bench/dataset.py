"""The contract of a dataset: samples with stable ids, split into an audit and a calibration set."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from PIL.Image import Image

Split = Literal["audit", "calibration", "memorised"]


@dataclass(frozen=True)
class Sample:
    """One image with what is known about it.

    Attributes:
        id: Stable id, unique in its dataset.
        image: A file, or a function that returns the decoded image or an image file's bytes; read only when needed.
        content: sha256 of the image's bytes (file or pixels).
        caption: The caption the image would have been trained with, or None.
        member: Whether the target was trained on it; None when unknown.
        split: `audit` samples are scored and reported, `calibration` samples may be used by the attacker, `memorised`
            samples are scored but stay out of the membership audit.
        group: Near-duplicates share one; defaults to the id.
        labels: Further labels, e.g. `{"memorised": True}`.
        word_weights: Importance of each word of the caption (split at spaces), if the dataset supplies it.
        near: The image's `mia_bench.near.dhash`, where the dataset knows it: then nothing is decoded to find
            near-duplicates.
    """

    id: str
    image: Path | Callable[[], Image | bytes]
    content: str
    caption: str | None = None
    member: bool | None = None
    split: Split = "audit"
    group: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)
    word_weights: tuple[float, ...] | None = None
    near: int | None = None

    @cached_property
    def digest(self) -> str:
        """Hash of everything an attack reads of this sample; part of a measurement's identity."""
        seen = json.dumps([self.content, self.caption, self.word_weights])
        return hashlib.sha256(seen.encode()).hexdigest()[:32]

    @cached_property
    def order(self) -> bytes:
        """Sort key: samples are taken in the order of their id's hash, never in file order."""
        return hashlib.sha256(self.id.encode()).digest()

    def open(self) -> Image:
        """Decode to RGB at native size.

        Raises:
            SampleError: The image is missing, damaged, or too small or large to be one.
        """
        from mia_bench.images import read_image

        return read_image(self.image, self.id)


class DatasetMeta(BaseModel):
    """What is known about a dataset before it is read.

    Attributes:
        name: Name on the command line, or `name:ARGUMENT`.
        summary: One line.
        targets: Names of targets whose membership it labels; the first is the default.
        construction: How members and non-members were made.
        biases: Known differences between them that are not membership.
        revision: Pinned revision of the data.
        argument: What follows the name, e.g. `PATH`, or in brackets what may; empty if nothing may.
        preset: What `--attacks all` takes of an attack that offers it, e.g. `quick` where published settings cost much
            and say no more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str
    targets: tuple[str, ...] = ()
    construction: str = ""
    biases: str = ""
    licence: str = ""
    citation: str = ""
    revision: str = ""
    argument: str = ""
    preset: str = ""

    @property
    def takes(self) -> str:
        """What may follow `name:`, or nothing."""
        return self.argument


class Dataset(ABC):
    """Base class of a dataset. `argument` is what follows the colon in `--dataset name:argument`."""

    meta: ClassVar[DatasetMeta]

    def __init__(self, argument: str = "") -> None:
        self.argument = argument

    @property
    def revision(self) -> str:
        """What exactly is read, as results name it; differs from `meta.revision` where the user's copy decides."""
        return self.meta.revision

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of targets whose membership it labels, where the argument decides; the first is the default."""
        return self.meta.targets

    def fetch(self, limit: int | None = None, allow_origin: tuple[str, int] | None = None) -> None:
        """Get onto this machine what `samples()` needs; a run calls it before. Does nothing if all is there.

        Args:
            limit: Samples of each class that will be taken; all if None.
            allow_origin: Host and port of the one origin that may be a private address.

        Raises:
            UnavailableError: It cannot be had.
        """
        return None

    @abstractmethod
    def samples(self) -> Sequence[Sample]:
        """All samples of both splits; images stay unread.

        Raises:
            UnavailableError: The data cannot be read.
        """
