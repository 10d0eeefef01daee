"""Images inside larger files: read one by one on demand, hashed once for as long as the file stays as it is.

A shard of tens of thousands of images is read whole on the first listing, since a sample's identity is the hash of its
bytes. What was found is kept in mia-bench's cache (folder `shards`, by path, size and time of the file), so that the
next listing reads none of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from mia_bench.cache import cache_folder
from mia_bench.errors import SampleError, brief

if TYPE_CHECKING:
    import pyarrow as pa

INDEX_VERSION = 1
ROWS_AT_ONCE = 32  # images in memory while a table is read


@dataclass(frozen=True, slots=True)
class Slice:
    """Some bytes of a file: an image in an archive."""

    path: Path
    offset: int
    size: int

    def __call__(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            found = file.read(self.size)
        if len(found) < self.size:
            raise SampleError(f"image in {self.path}", "the file ends before it does", "get the file anew")
        return found


@dataclass(frozen=True, slots=True)
class Cell:
    """An image in a row of a Parquet file: of one row group, no more than a few rows are decoded."""

    path: Path
    column: str  # to its bytes, e.g. `image.bytes`
    group: int
    row: int  # in its group

    def __call__(self) -> bytes:
        import pyarrow.parquet as pq

        row, found = self.row, None
        try:
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=2**20) as file:
                for batch in file.iter_batches(ROWS_AT_ONCE, [self.group], [self.column], use_threads=False):
                    if row < len(batch):
                        found = leaf(batch, self.column)[row].as_py()
                        break
                    row -= len(batch)
        except Exception as error:  # pyarrow raises many kinds
            raise SampleError(f"image in {self.path}", brief(error), "get the file anew") from error
        if found is None:
            raise SampleError(f"image in {self.path}", "the row holds no image", "remove the row")
        return bytes(found)


def leaf(batch: pa.RecordBatch, column: str) -> pa.Array:
    """The array of a column, or of one field of a column that is a struct."""
    name, _, field = column.partition(".")
    array = batch.column(name)
    return array.field(field) if field else array


def hashes(path: Path, column: str) -> pa.Table:
    """sha256 of every image of a Parquet file, in `sha256`, null where there is none; with its `group` and `row`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups: list[int] = []
    rows: list[int] = []
    digests: list[str | None] = []
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
        for group in range(file.num_row_groups):
            start = len(digests)
            for batch in file.iter_batches(ROWS_AT_ONCE, [group], [column], use_threads=False):
                for value in leaf(batch, column):
                    image = value.as_buffer() if value.is_valid else b""
                    digests.append(hashlib.sha256(image).hexdigest() if len(image) else None)
            groups += [group] * (len(digests) - start)
            rows += range(len(digests) - start)
    return pa.table(
        {"group": pa.array(groups, pa.int32()), "row": pa.array(rows, pa.int64()), "sha256": pa.array(digests)}
    )


def indexed(path: Path, kind: str, build: Callable[[], pa.Table]) -> pa.Table:
    """What `build` finds in a file, remembered until the file changes.

    Args:
        path: The file.
        kind: What is looked for in it.
        build: Reads the file.
    """
    import pyarrow.parquet as pq

    real = path.resolve()
    stat = real.stat()
    key = json.dumps([INDEX_VERSION, kind, str(real), stat.st_size, stat.st_mtime_ns, stat.st_ino])
    place = cache_folder() / "shards" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.parquet"
    with suppress(Exception):  # absent, or damaged: it is made anew
        return pq.read_table(place)
    found = build()
    with suppress(OSError):  # a cache that cannot be written costs time, nothing else
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f"{place.name}.{uuid4().hex}")
        try:
            pq.write_table(found, partial)
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)
    return found
