"""Parquet tables with images in them, or beside images: which columns mean what, and rows as samples."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench import Sample
from mia_bench.dataset import Split
from mia_bench.errors import UnavailableError, brief
from mia_bench_plugins.datasets.labels import cell, group_of, labels_of, member_of, split_of
from mia_bench_plugins.datasets.options import Options
from mia_bench_plugins.datasets.shards import Cell, hashes, indexed

if TYPE_CHECKING:
    import pyarrow as pa

SUCCESS = "success"  # what img2dataset writes for a picture that it got
CAPTIONS = ("caption", "text", "txt")
MEANINGS = ("caption", "member", "split_column", "id", "group")
KEPT = ("url",)  # kept as labels


class Columns(Options):
    """Which columns to read; None is the column of that name if there is one, an empty text is none.

    Attributes:
        image: The picture; by default the one column that holds pictures.
        caption: Its caption, by default `caption`, `text` or `txt`; of a list the first.
        member: Whether the model was trained on it.
        split_column: audit, calibration or memorised, by default `split`.
        id: Unique name, by default its place in the files.
        group: Near-duplicates share one.
    """

    image: str | None = None
    caption: str | None = None
    member: str | None = None
    split_column: str | None = None
    id: str | None = None
    group: str | None = None

    def among(self, known: Collection[str]) -> Columns:
        """The same without the names that are not known."""
        own = {name: "" for name, column in self if name in MEANINGS and column and column not in known}
        return self.model_copy(update=own)

    def chosen(self, known: Collection[str], what: str) -> dict[str, str]:
        """Column by meaning, of those there are; `image` left out.

        Raises:
            UnavailableError: A column that the user named is not there.
        """
        usual = {"caption": CAPTIONS, "member": ("member",), "split_column": ("split",), "id": ("id",)}
        found = {}
        for meaning in MEANINGS:
            named: str | None = getattr(self, meaning)
            if named and named not in known:
                why = f"no column {named!r}; it has {', '.join(sorted(known))}"
                raise UnavailableError(what, why, f"correct the option {meaning}")
            choice = [named] if named else [c for c in usual.get(meaning, (meaning,)) if c in known and named is None]
            if choice:
                found[meaning] = choice[0]
        return found


@dataclass
class Place:
    """Where rows lie, and what that says of them.

    Attributes:
        name: Prefix of ids.
        member: Unless a cell says otherwise.
        split: Unless a cell says otherwise.
    """

    name: str
    member: bool | None = None
    split: Split = "audit"

    @classmethod
    def of(cls, path: Path, root: Path) -> Place:
        """By the folders of a file from `root` on."""
        parts = path.relative_to(root).parts[:-1]
        return cls("/".join(parts), *labels_of(parts))


@dataclass
class Lost:
    """Rows that are no samples, counted by class and reason."""

    rows: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)

    def tell(self, what: str) -> None:
        """Say it once: lost rows are no random sample of their class."""
        if self.reasons:
            sides = []
            for side, total in self.rows.items():
                why = ", ".join(f"{n} {reason}" for (s, reason), n in sorted(self.reasons.items()) if s == side)
                sides.append(f"{why or 'none'} of {total}" + (f" {side}" if side else ""))
            lost, total = sum(self.reasons.values()), sum(self.rows.values())
            text = "%s: %d of %d rows have no picture and are no samples (%s)"
            logging.getLogger("mia_bench").warning(text, what, lost, total, "; ".join(sides))


def is_picture(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold image files: bytes, or bytes beside a path as the hub has them."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(f.name == "bytes" and is_picture(f.type) for f in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def image_column(schema: pa.Schema, named: str | None, what: str) -> str:
    """The column of the pictures' bytes, e.g. `jpg` or `image.bytes`.

    Raises:
        UnavailableError: It is not there, holds no bytes, or cannot be told from others.
    """
    import pyarrow as pa

    found = [f.name for f in schema if is_picture(f.type)]
    if named and named not in found:
        kind = f"holds {schema.field(named).type}" if named in schema.names else "is not there"
        why = f"column {named!r} {kind}; columns that hold pictures: {', '.join(found) or 'none'}"
        raise UnavailableError(what, why, "correct the option image")
    if not named and len(found) != 1:
        why = f"{len(found) or 'no'} columns hold pictures" + (f": {', '.join(found)}" if found else "")
        fix = f"name one: ,image={found[0]}" if found else f"columns: {', '.join(schema.names)}"
        raise UnavailableError(what, why, fix)
    name = named or found[0]
    return f"{name}.bytes" if pa.types.is_struct(schema.field(name).type) else name


def rows(path: Path, names: Collection[str], what: str) -> Iterator[dict[str, Any]]:
    """These columns of a Parquet file, row by row, a few at a time in memory.

    Raises:
        UnavailableError: It is damaged.
    """
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1024, columns=sorted(names)):
                yield from batch.to_pylist() if names else [{}] * len(batch)
    except Exception as error:  # pyarrow raises many kinds
        raise UnavailableError(what, f"{path}: {brief(error)}", "get the file anew") from error


def schema_of(path: Path, what: str) -> pa.Schema:
    """Columns of a Parquet file.

    Raises:
        UnavailableError: It is none.
    """
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path)
    except Exception as error:
        raise UnavailableError(what, f"{path}: {brief(error)}", "get the file anew") from error


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of the classes that integers stand for, by column, as the hub's `datasets` leaves them in a schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {c: f["names"] for c, f in features.items() if isinstance(f, dict) and f.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def pictures(path: Path, place: Place, columns: Columns, what: str, lost: Lost) -> Iterator[Sample]:
    """One sample for each row with a picture.

    Raises:
        UnavailableError: The file is damaged, or lacks a column.
    """
    schema = schema_of(path, what)
    image = image_column(schema, columns.image, what)
    chosen = columns.chosen([n for n in schema.names if not is_picture(schema.field(n).type)], what)
    wanted = {*chosen.values(), *({"key", "status", *KEPT} & set(schema.names))}
    # A class's number says nothing of membership: 0 may be called `member`.
    labels = {chosen.get("member"), chosen.get("split_column")}
    classes = {column: names for column, names in class_names(schema).items() if column in labels}
    try:
        index = indexed(path, f"parquet {image}", lambda: hashes(path, image))
    except Exception as error:
        raise UnavailableError(what, f"{path}: {brief(error)}", "get the file anew") from error
    contents = index["sha256"].to_pylist()
    where = zip(index["group"].to_pylist(), index["row"].to_pylist(), contents, strict=True)
    for number, (row, (group, within, content)) in enumerate(zip(rows(path, wanted, what), where, strict=True)):
        for column, names in classes.items():
            row[column] = names[row[column]] if row[column] in range(len(names)) else None
        name = str(row.get("key") or f"{path.stem}/{number}")
        sample = labelled(row, chosen, place, name, content or "", Cell(path, image, group, within), what)
        if counted(lost, sample.member, str(row.get("status") or SUCCESS), content is not None):
            yield sample


def counted(lost: Lost, member: bool | None, status: str, found: bool) -> bool:
    """Count a row; whether it is a sample."""
    side = {True: "members", False: "non-members", None: ""}[member]
    lost.rows[side] += 1
    if status == SUCCESS and found:
        return True
    lost.reasons[side, status if status != SUCCESS else "without a picture"] += 1
    return False


def labelled(
    row: Mapping[str, Any], chosen: Mapping[str, str], place: Place, name: str, content: str, image: Any, what: str
) -> Sample:
    """A row as a sample.

    Raises:
        UnavailableError: A cell means nothing.
    """

    def said(meaning: str) -> str:
        value = row.get(chosen[meaning]) if meaning in chosen else None
        if meaning == "caption" and isinstance(value, list):
            value = value[0] if value else None
        return cell(value).strip()

    name = f"{place.name}/{name}" if place.name else name
    try:
        member = member_of(said("member")) if said("member") else place.member
        split = split_of(said("split_column")) if said("split_column") else place.split
    except ValueError as error:
        fix = "correct the column, name another with member= or split_column=, or leave it empty to read none"
        raise UnavailableError(f"{what}, row {name}", str(error), fix) from error
    return Sample(
        id=said("id") or name,
        image=image,
        content=content,
        caption=said("caption") or None,
        member=member,
        split=split,
        group=said("group") or group_of(name, content),
        labels={k: row[k] for k in KEPT if row.get(k)},
    )
