"""The training parts of CIFAR, STL-10 and Tiny-ImageNet, in torchvision's order, from their own files; nothing pickled.

Published split files count images in the order in which torchvision's classes hand them out. The hub's parquet of
CIFAR-10 has the batches in another order, which is put right here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mia_bench.errors import UnavailableError
from mia_bench_plugins.datasets.labels import content_of
from mia_bench_plugins.datasets.shards import Cell, Slice, hashes, indexed
from mia_bench_plugins.datasets.tables import image_column, rows, schema_of

if TYPE_CHECKING:
    from PIL.Image import Image

# First labels of each batch of 10,000, by which batches are told apart.
CIFAR10 = (
    (6, 9, 9, 4, 1, 1, 2, 7, 8, 3),
    (1, 6, 6, 8, 8, 3, 4, 6, 0, 6),
    (8, 5, 0, 6, 9, 2, 8, 3, 6, 2),
    (0, 6, 0, 2, 7, 2, 1, 2, 4, 1),
    (1, 8, 5, 1, 5, 7, 4, 3, 8, 2),
)
CIFAR100 = ((19, 29, 0, 11, 1, 86, 90, 28, 23, 31),)
TRAIN = 50_000  # images of CIFAR's training part
# torchvision's: what its ImageFolder takes for an image.
FOLDER_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Item:
    """One image of a training part.

    Attributes:
        image: A file, or what reads it.
        content: sha256 of its bytes, made when asked for.
        number: Of its class, None if it has none.
        name: Of its class.
        file: Its name in the list of files.
    """

    image: Path | Callable[[], Image | bytes]
    content: Callable[[], str]
    number: int | None = None
    name: str = ""
    file: str = ""


@dataclass(frozen=True)
class Planes:
    """An image as raw bytes: three planes, red, green, blue."""

    source: Slice
    side: int
    columns_first: bool = False  # STL-10 stores its planes column by column
    resized: int = 0  # side after resizing, 0 to leave it

    def __call__(self) -> Image:
        from PIL import Image as pil

        planes = np.frombuffer(self.source(), dtype=np.uint8).reshape(3, self.side, self.side)
        image = pil.fromarray(np.ascontiguousarray(planes.transpose((2, 1, 0) if self.columns_first else (1, 2, 0))))
        return image.resize((self.resized, self.resized), pil.Resampling.BILINEAR) if self.resized else image


@dataclass(frozen=True)
class Resized:
    """An image file, brought to `side` along its short side, as torchvision's `Resize` does."""

    path: Path
    side: int

    def __call__(self) -> Image:
        from PIL import Image as pil

        from mia_bench.images import read_image

        image = read_image(self.path, self.path.name)
        short = min(image.size)
        width, height = (self.side * length // short for length in image.size)
        return image.resize((width, height), pil.Resampling.BILINEAR)


def cifar(root: Path, what: str, names_file: str, files: Sequence[str], header: int, how: str) -> list[Item]:
    """A training part of CIFAR in its binary version.

    Args:
        root: The folder of the files.
        what: Names the dataset in messages.
        names_file: Class names, one in each line.
        files: In their order.
        header: Bytes before the pixels; the last of them is the class.
        how: How to get the files.

    Raises:
        UnavailableError: A file is missing or cut short.
    """
    names = _lines(root / names_file)
    items: list[Item] = []
    for file in files:
        path = root / file
        if not path.is_file():
            raise UnavailableError(what, f"no {file} in {root}", how)
        size = header + 3 * 32 * 32
        records, rest = divmod(path.stat().st_size, size)
        if rest or not records:
            raise UnavailableError(what, f"{path} is cut short", how)
        data = np.memmap(path, dtype=np.uint8, mode="r").reshape(records, size)
        numbers = data[:, header - 1].tolist()
        for record, number in enumerate(numbers):
            pixels = Slice(path, record * size + header, size - header)
            name = names[number] if number < len(names) else ""
            items.append(Item(Planes(pixels, 32), _lazily(data[record, header:]), number, name, file))
    return items


def _lazily(pixels: np.ndarray) -> Callable[[], str]:
    return lambda: hashlib.sha256(pixels.tobytes()).hexdigest()


def cifar_table(
    path: Path, what: str, label: str, batches: Sequence[Sequence[int]], names: Sequence[str]
) -> list[Item]:
    """A training part of CIFAR as the hub ships it, its batches brought into torchvision's order.

    Args:
        path: The parquet file.
        what: Names the dataset in messages.
        label: Column of the class.
        batches: First labels of each batch, in torchvision's order.
        names: Class names, if they are known.

    Raises:
        UnavailableError: It is damaged, or in an order that is not known.
    """
    schema = schema_of(path, what)
    if label not in schema.names:
        raise UnavailableError(
            what, f"{path} has no column {label!r}", "use the hub's own parquet, or the binary version"
        )
    image = image_column(schema, None, what)
    numbers = [int(row[label]) for row in rows(path, {label}, what)]
    length = TRAIN // len(batches)
    starts = range(0, TRAIN, length)
    first = {tuple(numbers[start : start + len(batches[0])]): start for start in starts}
    if len(numbers) != TRAIN or set(first) != set(map(tuple, batches)):
        why = f"{path} does not hold the {TRAIN:,} training images in an order that is known, so indices mean nothing"
        raise UnavailableError(what, why, "use the binary version, or the hub's own parquet of the train split")
    index = indexed(path, f"parquet {image}", lambda: hashes(path, image))
    groups, within, digests = (index[name].to_pylist() for name in ("group", "row", "sha256"))
    order = [row for batch in batches for row in range(first[tuple(batch)], first[tuple(batch)] + length)]
    return [
        Item(
            Cell(path, image, groups[row], within[row]),
            lambda row=row: digests[row] or "",  # type: ignore[misc]
            numbers[row],
            names[numbers[row]] if numbers[row] < len(names) else "",
            path.name,
        )
        for row in order
    ]


def stl10(path: Path, what: str, how: str) -> list[Item]:
    """The unlabelled part of STL-10, resized to 32x32.

    Raises:
        UnavailableError: It is missing or cut short.
    """
    if not path.is_file():
        raise UnavailableError(what, f"no {path.name} in {path.parent}", how)
    size = 3 * 96 * 96
    records, rest = divmod(path.stat().st_size, size)
    if rest or not records:
        raise UnavailableError(what, f"{path} is cut short", how)
    digests = indexed(path, "stl10", lambda: _digests(path, size))["sha256"].to_pylist()
    return [
        Item(
            Planes(Slice(path, record * size, size), 96, columns_first=True, resized=32),
            lambda record=record: digests[record],  # type: ignore[misc]
            file=path.name,
        )
        for record in range(records)
    ]


def _digests(path: Path, size: int) -> Any:
    import pyarrow as pa

    found = []
    with path.open("rb") as file:
        while block := file.read(size):
            found.append(hashlib.sha256(block).hexdigest())
    return pa.table({"sha256": found})


def image_folder(root: Path, words: Path, what: str, how: str) -> list[Item]:
    """Image files by class, in the order of torchvision's `ImageFolder`, resized to 32x32.

    Args:
        root: A folder of one folder for each class.
        words: Names of the classes, `FOLDER<tab>NAME` in each line; may be missing.
        what: Names the dataset in messages.
        how: How to get the files.

    Raises:
        UnavailableError: It is missing or empty.
    """
    classes = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    names = dict(line.split("\t", 1) for line in _lines(words) if "\t" in line)
    items = [
        Item(
            Resized(path, 32),
            lambda path=path: content_of(path),  # type: ignore[misc]
            number,
            names.get(folder, folder),
            path.relative_to(root).as_posix(),
        )
        for number, folder in enumerate(classes)
        for path in _files(root / folder)
    ]
    if not items:
        raise UnavailableError(what, f"no images in {root}", how)
    return items


def _files(folder: Path) -> Iterator[Path]:
    """Image files below a folder: folders sorted by path, files by name."""
    for place in sorted({folder, *(p for p in folder.rglob("*") if p.is_dir())}, key=str):
        yield from sorted(p for p in place.iterdir() if p.suffix.lower() in FOLDER_SUFFIXES and p.is_file())


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        return []
