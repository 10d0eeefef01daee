"""The record of `mia-bench inspect`: what a dataset is like before any model is asked."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from mia_bench.dataset import Split


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Record):
    """Of numbers: least, 5 %, median, 95 %, most; and shares of ten bins that the classes share."""

    least: float
    low: float
    median: float
    high: float
    most: float
    bins: tuple[float, ...]


class Class(_Record):
    """Samples of one split and one membership."""

    split: Split
    member: bool | None
    n: int
    captioned: int
    characters: Spread | None
    """Of the captions that are there; likewise `words`."""
    words: Spread | None
    read: int
    """Images that were decoded; what follows is of these."""
    damaged: int
    width: Spread | None
    height: Spread | None
    aspect: Spread | None
    """Width over height."""
    bytes: Spread | None
    """Of files."""
    formats: dict[str, int]
    """Of files, as their content says."""

    @property
    def name(self) -> str:
        """`members`, `non-members`, `unknown`."""
        return {True: "members", False: "non-members", None: "unknown"}[self.member]


class Alike(_Record):
    """Groups of samples that are alike."""

    groups: int
    samples: int
    across_classes: int
    """Groups with members and non-members."""
    across_splits: int
    examples: tuple[tuple[str, ...], ...]
    """Ids; first the groups across classes, then those across splits, then the largest."""


class Interval(_Record):
    """An AUC with its 95 % interval; None, with a reason, where it is undefined."""

    label: str
    members: int = 0
    nonmembers: int = 0
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


class Frechet(_Record):
    """Distance of the classes in an encoder's embeddings, beside that of members and other members."""

    encoder: str
    half: int = 0
    """Samples in each set compared."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    floor_low: float | None = None
    floor_high: float | None = None
    reason: str | None = None


class Word(_Record):
    """A word that one class's captions hold more often; shares of captions."""

    word: str
    members: float
    nonmembers: float
    p_value: float


class Host(_Record):
    """A host that images come from; shares of each class's images."""

    host: str
    members: float
    nonmembers: float


class Survived(_Record):
    """How many urls of a class still gave an image, with the interval of their share."""

    kind: str
    urls: int
    tried: int
    survived: int
    low: float
    high: float


class Inspection(_Record):
    """What `inspect` found."""

    dataset: str
    about: dict[str, Any]
    """What the dataset says of itself."""
    n: int
    samples_hash: str
    classes: tuple[Class, ...]
    limit: int | None
    hashed: int
    """Samples among which near-duplicates were sought."""
    near: int
    """Bits in which the hashes of near-duplicates may differ."""
    exact: Alike
    alike: Alike
    """Near-duplicates that are not the same file."""
    blind: tuple[Interval, ...]
    frechet: Frechet
    lengths: Interval
    """AUC of the caption's length."""
    words: tuple[Word, ...]
    words_tested: int
    hosts: tuple[Host, ...]
    """The most frequent; empty where the dataset names none."""
    hosts_in_all: int
    hosts_shared: float | None
    """Share of images on hosts of both classes."""
    survival: tuple[Survived, ...]
    damaged: dict[str, str]
    """Sample -> why its image cannot be read."""
