"""Image files with metadata tables or sidecar captions: the layout that `folder`, `hf` and others read."""

from __future__ import annotations

import csv
import errno
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mia_bench import Sample
from mia_bench.errors import SampleError, UnavailableError
from mia_bench_plugins.datasets.labels import (
    LABELS,
    SUFFIXES,
    cell,
    content_of,
    group_of,
    labels_of,
    member_of,
    plain,
    split_of,
)
from mia_bench_plugins.datasets.tables import is_picture, rows, schema_of

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger("mia_bench")
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
COLUMNS = {"file_name", "caption", "text", "member", "split", "id", "group", "word_weights"}
CAPTION = {"caption", "text"}  # two names of one column


def read(root: Path, what: str, names: Mapping[str, str] | None = None) -> list[Sample]:
    """Every image of a folder, by its tables where it has any, else by its files.

    A table lists the images of the folder it lies in. Folder names from the top may say what the images are, and text
    files beside them hold captions; a table's cells come first.

    Args:
        root: The folder.
        what: Names the dataset in messages.
        names: Columns that go by another name in the tables, e.g. `{"caption": "prompt"}`; an empty one is not read.

    Raises:
        UnavailableError: A table or folder cannot be read, means nothing, or holds no images.
    """
    try:
        tables: dict[Path, Path] = {}
        here = [root / name for name in METADATA if (root / name).is_file()]
        for path in here or sorted(p for name in METADATA for p in root.rglob(name) if p.is_file()):
            if path.parent in tables:
                why = f"both {tables[path.parent].name} and {path.name}"
                raise UnavailableError(f"folder {path.parent}", why, "keep one of them")
            tables[path.parent] = path
        samples = [s for table in tables.values() for s in _listed(table, root, names or {})]
        if not here:
            _check_labelled(root, what)
            samples += _walked(root, tables)
    except OSError as error:
        raise UnavailableError(what, str(error), "make it readable") from error
    if not samples:
        raise UnavailableError(what, "no images", "put images there, or correct its metadata file")
    return samples


def _check_labelled(root: Path, what: str) -> None:
    """A folder that says members or non-members holds some."""
    for folder in [p for pattern in ("*/", "*/*/") for p in sorted(root.glob(pattern))]:
        parts = folder.relative_to(root).parts
        named = plain(folder.name) in LABELS and folder.is_dir()
        if named and labels_of(parts)[0] is not None and not any(map(_is_image, folder.rglob("*"))):
            raise UnavailableError(what, f"no images in {folder}", "put images there, or remove the folder")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _listed(table: Path, root: Path, names: Mapping[str, str]) -> Iterator[Sample]:
    """One sample for each row of a table."""
    columns: dict[str, None] = {}
    try:
        for line, row in READERS[table.suffix](table):
            columns.update(dict.fromkeys(row))
            try:
                yield _sample(table.parent, root, row, names)
            except ValueError as error:
                raise _malformed(table, line, str(error)) from error
    except UnicodeDecodeError as error:
        raise UnavailableError(str(table), "not UTF-8 text", "save it as UTF-8") from error
    _check_columns(table, set(columns) - set(names.values()), names)


def _check_columns(table: Path, columns: set[str], names: Mapping[str, str]) -> None:
    """Refuse a column that was meant to be read; name the others once."""
    others = sorted(columns - COLUMNS)
    absent = {name for name in COLUMNS - columns - set(names) if len(name) > 3}  # `uid` and `idx` mean themselves
    if CAPTION & (columns | set(names)):
        absent -= CAPTION
    for name in others:
        word = name.strip().lower()
        if close := get_close_matches(word, absent, n=1, cutoff=0.75 if len(word) > 4 else 0.8):  # `test` is not `text`
            what = f"{table}, column {name!r}"
            raise UnavailableError(what, f"not a column that is read; did you mean {close[0]!r}?", "rename it")
    if others:
        logger.warning("%s: kept as labels, read by no attack: %s", table, ", ".join(others))


def _malformed(table: Path, line: int, why: str) -> UnavailableError:
    return UnavailableError(f"{table}, line {line}", why, "correct that line")


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line number and cells of each row; a quoted cell may span lines."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            names = next(reader, [])
            if "file_name" not in names or len(set(names)) < len(names):
                raise _malformed(path, 1, "the header needs file_name, and each column once")
            line = reader.line_num + 1
            for cells in reader:
                if cells and len(cells) != len(names):
                    raise _malformed(path, line, f"{len(cells)} cells under {len(names)} columns")
                if cells:
                    yield line, dict(zip(names, cells, strict=True))
                line = reader.line_num + 1
        except csv.Error as error:
            raise _malformed(path, reader.line_num, str(error)) from error


def _jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line number and fields of each row."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _malformed(path, number, f"not JSON: {error}") from error
            if not isinstance(row, dict):
                raise _malformed(path, number, "not a JSON object")
            yield number, {name: cell(value) for name, value in row.items()}


def _parquet(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Number and cells of each row, from 1."""
    schema = schema_of(path, str(path))
    if "file_name" not in schema.names or len(set(schema.names)) < len(schema.names):
        raise UnavailableError(str(path), "it needs a column file_name, and each column once", "correct it")
    names = [f.name for f in schema if not is_picture(f.type)]
    for number, row in enumerate(rows(path, names, str(path)), 1):
        yield number, {name: cell(value) for name, value in row.items()}


READERS = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}


def _sample(folder: Path, root: Path, row: Mapping[str, str], names: Mapping[str, str]) -> Sample:
    """Raises ValueError: The row means nothing."""
    if absent := sorted(column for column in names.values() if column and column not in row):
        raise ValueError(f"no column {absent[0]!r}")
    own = {**row, **{name: row[column] if column else "" for name, column in names.items()}}
    path = folder / _inside(own.get("file_name", ""))
    name = path.relative_to(root).as_posix()
    member, split = labels_of(path.relative_to(root).parts[:-1])
    caption = own.get("caption") or ("" if "caption" in names else own.get("text")) or None
    image: Path | Callable[[], Image] = path
    if not CAPTION & {*own, *names}:
        caption, image = _beside(path)
    said, placed = own.get("member", ""), own.get("split", "")
    content = content_of(path)
    return Sample(
        id=own.get("id", "").strip() or name,
        image=image,
        content=content,
        caption=caption,
        member=member_of(said) if said.strip() else member,
        split=split_of(placed) if placed.strip() else split,
        group=own.get("group", "").strip() or group_of(name, content),
        labels={c: v for c, v in row.items() if c not in COLUMNS and c not in names.values() and v},
        word_weights=_weights(own.get("word_weights", ""), caption),
    )


def _inside(name: str) -> str:
    """The file name, when it stays within the folder; links are followed, the folder's owner made them."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"file_name {name!r} leaves the folder")
    if not path.name or "\0" in name:
        raise ValueError(f"file_name {name!r} names no file")
    return str(path)


def _weights(text: str, caption: str | None) -> tuple[float, ...] | None:
    weights, words = text.split(), (caption or "").split(" ")
    if not weights:
        return None
    if len(weights) != len(words):
        raise ValueError(f"{len(weights)} word_weights for {len(words)} words of the caption")
    numbers = tuple(map(float, weights))
    if not all(map(math.isfinite, numbers)):
        raise ValueError("word_weights are not all finite")
    return numbers


def _walked(root: Path, listed: Iterable[Path]) -> Iterator[Sample]:
    """One sample for each image file below `root` that no table is near to; hidden ones are left out."""
    tabled = set(listed)
    names = (path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    for name in sorted(names, key=Path.as_posix):
        path = root / name
        hidden = any(part.startswith(".") for part in name.parts)
        if hidden or not path.is_file() or not tabled.isdisjoint(path.parents):
            continue
        member, split = labels_of(name.parts[:-1])
        caption, image = _beside(path)
        content = content_of(path)
        yield Sample(
            id=name.as_posix(),
            image=image,
            content=content,
            caption=caption,
            member=member,
            split=split,
            group=group_of(name.as_posix(), content),
        )


def _beside(path: Path) -> tuple[str | None, Path | Callable[[], Image]]:
    """The caption in the text file beside an image; where it cannot be read, opening the image says so."""
    text = path.with_suffix(".txt")
    try:
        if not text.exists():
            return None, path
        if not text.is_file():  # reading a pipe would never end
            raise OSError(errno.EINVAL, "not a regular file")
        return text.read_text(encoding="utf-8-sig").strip() or None, path
    except (OSError, UnicodeDecodeError) as error:  # costs this sample, as a damaged image does
        return None, partial(_refuse_caption, text, getattr(error, "strerror", None) or "not UTF-8 text")


def _refuse_caption(path: Path, why: str) -> Image:
    fix = "save it as UTF-8" if why.endswith("text") else "make it readable"
    raise SampleError(f"caption {path}", f"its caption {path} cannot be read: {why}; {fix}, or remove it", fix)
