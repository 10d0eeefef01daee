"""Tar shards as img2dataset and webdataset write them: `--dataset webdataset:PATH,OPTION=VALUE,...`.

PATH is a `.tar` file, or a folder of them; folder names from the top may say `members`, `nonmembers` and `calibration`.
A sample is the files that share a name up to the first dot: `000000017.jpg`, `.txt` (caption), `.json` (columns). The
table beside a shard, `00000.parquet`, comes before the JSON; its rows whose `status` is not `success` are counted.

Options name columns: `caption` (`caption`, `text`, else the `.txt` file), `member`, `split_column` (`split`), `id`,
`group`; `image` is the ending of the pictures, by default whichever is an image's. An empty one is not read.

Pictures are read one by one, by their place in the shard; a compressed shard would have to be read from its start for
each, and is refused.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench import Dataset, DatasetMeta, Sample, hookimpl
from mia_bench.errors import UnavailableError, brief
from mia_bench_plugins.datasets.labels import SUFFIXES, check
from mia_bench_plugins.datasets.options import parse
from mia_bench_plugins.datasets.parquet import files
from mia_bench_plugins.datasets.shards import Slice, indexed
from mia_bench_plugins.datasets.tables import KEPT, Columns, Lost, Place, counted, labelled, rows, schema_of

if TYPE_CHECKING:
    import pyarrow as pa

MAX_TEXT = 2**20  # bytes of a caption or of a sample's JSON


class WebDataset(Dataset):
    """Tar shards; options: caption, member, split_column, id, group (columns), image (ending of the pictures)."""

    meta = DatasetMeta(
        name="webdataset",
        summary="tar shards of KEY.jpg, KEY.txt and KEY.json, as img2dataset writes them",
        construction="as its member column or its folders say",
        biases="unknown: look at the blind control's row; rows that failed to download are no random sample",
        licence="the data's own",
        argument="PATH[,COLUMN=NAME,...]",
    )

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.place, self.columns = parse("webdataset", argument, Columns)

    def samples(self) -> Sequence[Sample]:
        what, lost = f"dataset webdataset:{self.place}", Lost()
        samples: list[Sample] = []
        for path, place in files("webdataset", self.place, ".tar"):
            samples += _shard(path, place, self.columns, what, lost)
        lost.tell(what)
        if not samples:
            raise UnavailableError(what, "no picture in its shards", "check the path, or the option image")
        check(samples, what)
        return samples


def _shard(path: Path, place: Place, columns: Columns, what: str, lost: Lost) -> Iterator[Sample]:
    """One sample for each picture of a shard, and a count of those that it lacks."""
    ending = (columns.image or "").lower().lstrip(".")
    try:
        index = indexed(path, f"tar {ending}", lambda: index_of(path, ending))
    except (OSError, tarfile.TarError) as error:
        packed = isinstance(error, tarfile.ReadError) and _compressed(path)
        why = "compressed: no picture can be read without all before it" if packed else brief(error)
        fix = f"unpack it: gunzip {path}" if packed else "get the shard anew"
        raise UnavailableError(f"{what}, shard {path}", why, fix) from error
    pictures: dict[str, Mapping[str, Any]] = {row["key"]: row for row in index.to_pylist()}
    if len(pictures) < len(index):
        raise UnavailableError(f"{what}, shard {path}", "duplicate key", "give each picture its own")
    table = path.with_suffix(".parquet")
    beside = {key: _json(picture, what) for key, picture in pictures.items()}
    known = set(schema_of(table, what).names) if table.is_file() else set[str]()
    chosen = columns.chosen(known.union(*beside.values()), what) | columns.among(known).chosen(known, what)
    if table.is_file():
        wanted = {*chosen.values(), "key", "status", *KEPT} & known
        told = ((str(row.get("key") or ""), row) for row in rows(table, wanted, what))
        found = ((key, beside.get(key, {}) | {k: v for k, v in row.items() if v is not None}) for key, row in told)
    else:
        found = ((key, row) for key, row in beside.items())
    untold = dict(pictures)
    for key, row in found:
        picture = untold.pop(key, None)
        sample = _sample(path, place, key, row, chosen, picture, columns, what)
        if counted(lost, sample.member, str(row.get("status") or "success"), picture is not None):
            yield sample
    for key, picture in untold.items():  # the table beside the shard does not know them
        yield _sample(path, place, key, beside[key], chosen, picture, columns, what)


def _sample(
    path: Path,
    place: Place,
    key: str,
    row: Mapping[str, Any],
    chosen: Mapping[str, str],
    picture: Mapping[str, Any] | None,
    columns: Columns,
    what: str,
) -> Sample:
    picture = picture or {"offset": 0, "size": 0, "sha256": "", "txt": None}
    if columns.caption is None and not row.get(chosen.get("caption", "")):
        row, chosen = {**row, ".txt": picture["txt"]}, {**chosen, "caption": ".txt"}
    image = Slice(path, picture["offset"], picture["size"])
    return labelled(row, chosen, place, key, picture["sha256"], image, what)


def _json(picture: Mapping[str, Any], what: str) -> dict[str, Any]:
    try:
        row = json.loads(picture["json"] or "{}")
    except (ValueError, RecursionError) as error:
        raise UnavailableError(f"{what}, sample {picture['key']}", f"not JSON: {error}", "correct it") from error
    return row if isinstance(row, dict) else {}


def index_of(path: Path, ending: str) -> pa.Table:
    """Where each picture of a tar file lies, its hash, and the text beside it.

    Args:
        path: Uncompressed; nothing is unpacked, links are not followed.
        ending: Of the pictures, without a dot; those of image files if empty.

    Raises:
        OSError: It cannot be read.
        tarfile.TarError: It is damaged or compressed.
    """
    import pyarrow as pa

    names = {ending} if ending else {suffix[1:] for suffix in SUFFIXES}
    found: dict[str, dict[str, Any]] = {}
    with path.open("rb") as data, tarfile.open(path, "r:") as archive:
        size = path.stat().st_size
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # else it keeps every header
            folder, _, name = member.name.removeprefix("./").rpartition("/")
            stem, _, suffix = name.partition(".")
            if not member.isfile() or member.sparse is not None or not stem:
                continue
            if member.offset_data + member.size > size:
                raise tarfile.ReadError(f"the file ends within {member.name}")
            key, suffix = (f"{folder}/{stem}" if folder else stem), suffix.lower()
            if suffix in names:
                data.seek(member.offset_data)
                digest = hashlib.sha256(data.read(member.size)).hexdigest()
                row = found.setdefault(key, {})
                if "offset" in row:
                    why = f"{key} has two pictures, .{row['suffix']} and .{suffix}; choose with the option image"
                    raise tarfile.ReadError(why)
                row |= {"suffix": suffix, "offset": member.offset_data, "size": member.size, "sha256": digest}
            elif suffix in ("txt", "json") and member.size <= MAX_TEXT:
                data.seek(member.offset_data)
                found.setdefault(key, {})[suffix] = data.read(member.size).decode(errors="replace").strip()
    pictures = [{"key": key, **row} for key, row in found.items() if "offset" in row]
    types = {name: pa.string() for name in ("key", "sha256", "txt", "json")}
    columns = types | {"offset": pa.int64(), "size": pa.int64()}
    return pa.Table.from_pylist(pictures, schema=pa.schema(list(columns.items())))


def _compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [WebDataset]
