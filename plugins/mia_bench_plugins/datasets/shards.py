"""Images inside larger files: read one by one on demand, hashed once for as long as the file stays as it is.

A shard of tens of thousands of images is read whole on the first listing, since a sample's identity is the hash of its
bytes. What was found is kept in mia-bench's cache (folder `shards`, by path, size and time of the file), so that the
next listing reads none of them.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from uuid import uuid4

from mia_bench.cache import cache_folder
from mia_bench.errors import SampleError, brief

if TYPE_CHECKING:
    import pyarrow as pa

INDEX_VERSION = 1
KEPT_BYTES = 2**26  # of a row group's images in memory
GROUPS = 4  # row groups in memory
OPENING = Lock()  # threads that ask for one group at once share it
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
    """An image in a row of a Parquet file."""

    path: Path
    column: str  # to its bytes, e.g. `image.bytes`
    group: int
    row: int  # in its group

    def __call__(self) -> bytes:
        try:
            state = self.path.stat()
            with OPENING:
                group = _group(self.path, state.st_size, state.st_mtime_ns, self.column, self.group)
            found = group.at(self.row)
        except Exception as error:  # pyarrow raises many kinds
            _group.cache_clear()  # where decoding stopped, it cannot go on
            raise SampleError(f"image in {self.path}", brief(error), "get the file anew") from error
        if found is None:
            raise SampleError(f"image in {self.path}", "the row holds no image", "remove the row")
        return found


class Group:
    """Images of a row group: decoded in order as far as they are asked for, the last of them kept.

    A row cannot be decoded without those before it in its group. Whoever reads images one after another, in several
    threads at that, decodes each once; a group of up to `KEPT_BYTES` is kept whole, and read in any order.
    """

    def __init__(self, path: Path, column: str, group: int) -> None:
        self.path, self.column, self.group = path, column, group
        self.lock = Lock()
        self._rewind()

    def _rewind(self) -> None:
        import pyarrow.parquet as pq

        self.file = pq.ParquetFile(self.path, pre_buffer=False, buffer_size=2**20)
        self.coming = self.file.iter_batches(ROWS_AT_ONCE, [self.group], [self.column], use_threads=False)
        self.kept: deque[pa.Array] = deque()
        self.start = self.stop = self.size = 0  # rows that are kept, and their bytes

    def at(self, row: int) -> bytes | None:
        """The image in a row, None if there is none; row and group as the file had them when it was listed."""
        with self.lock:
            if row < self.start:
                self._rewind()
            while row >= self.stop:
                if (batch := next(self.coming, None)) is None:
                    return None
                self._keep(leaf(batch, self.column))
            place = row - self.start
            for array in self.kept:
                if place < len(array):
                    found = array[place].as_py()
                    return None if found is None else bytes(found)
                place -= len(array)
            return None

    def _keep(self, array: pa.Array) -> None:
        self.kept.append(array)
        self.stop += len(array)
        self.size += array.nbytes
        while self.size > KEPT_BYTES and len(self.kept) > 2:  # threads ask for neighbours, not quite in order
            oldest = self.kept.popleft()
            self.start += len(oldest)
            self.size -= oldest.nbytes


@lru_cache(maxsize=GROUPS)
def _group(path: Path, size: int, mtime_ns: int, column: str, group: int) -> Group:
    """Opened once for as long as the file stays as it is."""
    return Group(path, column, group)


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
