"""What tests of datasets share: pictures, tables as the hub has them, and refusals."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mia_bench.errors import UnavailableError, UsageError


def encoded(shade: int, side: int = 16, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (shade % 256, shade // 256 % 256, 7)).save(stream, kind)
    return stream.getvalue()


def written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def shade(sample) -> int:
    """The number that `encoded` drew."""
    red, green, _ = np.asarray(sample.open())[0, 0].tolist()
    return red + 256 * green


def table(path: Path, columns: dict, rows_each: int = 2, image: str | None = None) -> Path:
    """A Parquet file; `image` becomes a struct of bytes and path, as the hub has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = dict(columns)
    if image:
        pictures = [None if b is None else {"bytes": b, "path": "x.png"} for b in columns[image]]
        columns[image] = pa.array(pictures, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table(columns), path, row_group_size=rows_each)
    return path


def refused(cls, argument: str, *words: str, fix: str = "", kind=UnavailableError) -> None:
    with pytest.raises(kind) as caught:
        cls(argument).samples()
    for word in words:
        assert word in str(caught.value)
    assert caught.value.fix and fix in caught.value.fix


def unusable(cls, argument: str, *words: str) -> None:
    refused(cls, argument, *words, kind=UsageError)
