"""Reading the Parquet files of measurements, and telling damage from what the system refuses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mia_bench.errors import UnavailableError, brief

SCHEMA = pa.schema(
    [
        ("fingerprint", pa.dictionary(pa.int32(), pa.string())),
        ("sample_id", pa.string()),
        ("sample_digest", pa.string()),
        ("term", pa.dictionary(pa.int32(), pa.string())),
        ("shape", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float64())),
        ("shard", pa.dictionary(pa.int32(), pa.string())),
    ]
)
ROWS_AT_ONCE = 4096  # measurements in memory where all are gone through


def read_shard(path: Path, columns: list[str] | None = None, rows: Any = None) -> pa.Table:
    """The measurements of a shard that `rows` selects."""
    with unreadable_named(path):
        return pq.read_table(path, columns=columns, filters=rows, page_checksum_verification=True)


def streamed(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """A shard a few rows at a time: a compacted one can be larger than memory."""
    names = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
    with (
        unreadable_named(path),
        pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False, buffer_size=2**20) as file,
    ):
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns, use_threads=False):
            yield pa.Table.from_batches([batch]).cast(names)


class DamagedError(UnavailableError):
    """A shard whose content is no shard's."""


@contextlib.contextmanager
def unreadable_named(path: Path) -> Iterator[None]:
    """Name the shard, and tell damage from a system that does not let it be read."""
    try:
        yield
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        what = f"shard {path}"
        if getattr(error, "errno", None):
            raise UnavailableError(what, f"cannot be read: {brief(error)}", "make it readable") from error
        if isinstance(error, (OSError, KeyError, ValueError)):  # Arrow's own say damage with these
            fix = "run `mia-bench run` with the same options: it sets the file aside and measures its samples anew"
            raise DamagedError(what, f"it is damaged: {brief(error)}", fix) from error
        fix = "free some memory, or read it with the version of pyarrow that wrote it"
        raise UnavailableError(what, f"cannot be read: {brief(error)}", fix) from error
