"""The run folder: immutable Parquet shards of measurements beside a manifest that holds only the plan.

A shard is written under a temporary name, flushed and renamed: a shard that has its name is complete. What has been
measured is the union of the shards, found by identity (attack, parameters, target, seed, dtype) and sample hash, so
resuming, extending a run and merging runs are one operation. Compaction writes one file that names the shards it
replaces; a reader ignores files whose shards another file holds, so a kill between the two steps does no harm.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from mia_bench.errors import UnavailableError, UsageError, brief

SCHEMA_VERSION = 1
logger = logging.getLogger("mia_bench")
META = b"mia_bench.shards"
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
ARTIFACTS = "artifacts"  # folder of pictures
SHARDS = "[!.]*.parquet"
WRITING = {"compression": "zstd", "write_page_checksum": True}
PORTION = 2**26  # bytes of a row group that shards are joined to
ROWS_AT_ONCE = 4096  # measurements in memory where all are gone through
Terms = Mapping[str, NDArray[np.float64]]


class Store:
    """One run folder.

    Args:
        folder: The run folder; made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards = folder / "measurements"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against a second run. The system drops the lock of a killed process by itself.

        Raises:
            UsageError: Another run holds it, or the folder cannot be written.
        """
        try:
            self.shards.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise UsageError(
                f"run folder {self.folder}",
                "another run is writing to it",
                "wait for it to end, or choose another folder with --out",
            ) from None
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        try:
            for folder in (self.folder, self.shards):  # nobody else writes while we hold the lock
                for left in folder.glob(".*.tmp"):  # of a killed run
                    left.unlink(missing_ok=True)
            yield
        finally:
            lock.release()

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a JSON file of the run at once."""
        text = json.dumps(content, indent=1, allow_nan=False)
        self._replace(self.folder / name, lambda path: path.write_text(text + "\n", encoding="utf-8"))

    def read_json(self, name: str, fix: str = "run again into a new folder") -> dict[str, Any]:
        """A JSON file of the run.

        Raises:
            UnavailableError: Missing or damaged; `fix` says what to do about damage.
        """
        path = self.folder / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            why = "it is a file" if self.folder.is_file() else f"it has no {name}"
            raise UnavailableError(
                f"run folder {self.folder}", why, "give a folder that `mia-bench run` wrote"
            ) from None
        except OSError as error:
            raise UnavailableError(f"file {path}", brief(error), "make it readable") from error
        except ValueError as error:
            raise UnavailableError(f"file {path}", f"not JSON: {brief(error)}", fix) from error
        if not isinstance(content, dict):
            raise UnavailableError(f"file {path}", "not a JSON object", fix)
        return content

    def remove(self, *names: str) -> None:
        """Delete files and folders of the run if they are there."""
        for name in names:
            path = self.folder / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Replace a Parquet file of the run at once."""
        self._replace(self.folder / name, lambda path: pq.write_table(table, path, compression="zstd"))

    def add(
        self,
        ids: Sequence[str],
        digests: Sequence[str],
        measured: Mapping[str, Terms],
        provenance: Mapping[str, Any],
    ) -> str:
        """Store one batch as a shard.

        Args:
            ids: Sample ids, length B.
            digests: Their hashes.
            measured: fingerprint -> term -> float64 `(B, ...)`; a row of NaN in every term marks a sample that this
                attack could not measure and is left out.
            provenance: What made the shard; recorded, never compared.

        Returns:
            The shard's name.
        """
        name = uuid.uuid4().hex[:12]
        rows: dict[str, list[Any]] = {field: [] for field in SCHEMA.names}
        for fingerprint, terms in measured.items():
            for term, values in terms.items():
                flat = values.reshape(len(ids), -1)
                kept = np.flatnonzero(~np.isnan(flat).any(axis=1)).tolist()
                rows["fingerprint"] += [fingerprint] * len(kept)
                rows["sample_id"] += [ids[i] for i in kept]
                rows["sample_digest"] += [digests[i] for i in kept]
                rows["term"] += [term] * len(kept)
                rows["shape"] += [list(values.shape[1:])] * len(kept)
                rows["values"] += list(flat[kept])
                rows["shard"] += [name] * len(kept)
        self._write_shard(name, pa.table(rows, schema=SCHEMA), {name: provenance})
        return name

    def compact(self) -> None:
        """Join all shards into one file; harmless when interrupted."""
        files = list(self._files())
        replaced = set(self.shards.glob(SHARDS))  # with what an interrupted compaction left behind
        if len(files) > 1:
            shards = {name: record for _, records in files for name, record in records.items()}
            self._write_joined(uuid.uuid4().hex[:12], [path for path, _ in files], shards)
        else:
            replaced -= {path for path, _ in files}
        for path in replaced:
            path.unlink()

    def set_aside_damaged(self) -> None:
        """Rename shards that cannot be read to `*.damaged`, so that their samples count as not measured."""
        for path in sorted(self.shards.glob(SHARDS)):
            try:
                with _unreadable_named(path):
                    json.loads((pq.read_schema(path).metadata or {})[META])
                for _ in _streamed(path):
                    pass
            except _DamagedError as error:
                aside = path.rename(path.with_name(f"{path.name}.damaged"))
                logger.warning("%s; set aside as %s, its samples are measured anew", error, aside.name)

    def provenance(self) -> dict[str, dict[str, Any]]:
        """What made each shard, by shard name."""
        return {name: record for _, records in self._files() for name, record in records.items()}

    def done(self, fingerprints: Iterable[str]) -> dict[str, set[tuple[str, str]]]:
        """For each fingerprint, the (sample id, digest) pairs that have been measured."""
        found: dict[str, set[tuple[str, str]]] = {f: set() for f in fingerprints}
        pairs: dict[tuple[str, str], tuple[str, str]] = {}  # one object for a sample, however many attacks have it
        columns = ["fingerprint", "sample_id", "sample_digest"]
        for path, _ in self._files():
            for table in _streamed(path, columns):
                for fingerprint, *pair in zip(*(table[c].to_pylist() for c in columns), strict=True):
                    if fingerprint in found:
                        sample = (pair[0], pair[1])
                        found[fingerprint].add(pairs.setdefault(sample, sample))
        return found

    def held(self, fingerprints: Iterable[str]) -> dict[str, dict[str, set[tuple[str, str]]]]:
        """Shard -> fingerprint -> (id, digest) of the samples whose measurement it holds; sorted by name."""
        columns = ["shard", "fingerprint", "sample_id", "sample_digest"]
        table = self._read(columns, pc.field("fingerprint").isin(list(fingerprints)))
        distinct = table.group_by(columns).aggregate([])
        # Sorted, because Arrow's threads group in any order and the caller adds up in this one.
        held: dict[str, dict[str, set[tuple[str, str]]]] = {}
        for shard, fingerprint, *pair in sorted(zip(*(distinct[c].to_pylist() for c in columns), strict=True)):
            held.setdefault(shard, {}).setdefault(fingerprint, set()).add((pair[0], pair[1]))
        return held

    def terms(self, fingerprint: str, samples: Sequence[tuple[str, str]]) -> tuple[NDArray[np.bool_], Terms]:
        """The measurements of some samples.

        Args:
            fingerprint: Identity of the measurement.
            samples: (id, digest) pairs, length N.

        Returns:
            bool `(N,)`: which samples have been measured; and term -> float64 `(n, ...)` for those, in order. All are
            read-only: presets share them.
        """
        table = self._read(None, pc.field("fingerprint") == fingerprint)
        place = {sample: i for i, sample in enumerate(samples)}
        found = np.zeros(len(samples), dtype=bool)
        terms: dict[str, NDArray[np.float64]] = {}
        for term in sorted(set(table["term"].to_pylist())):
            part = table.filter(pc.equal(table["term"].cast(pa.string()), term))
            pairs = zip(part["sample_id"].to_pylist(), part["sample_digest"].to_pylist(), strict=True)
            index = np.array([place.get(pair, -1) for pair in pairs])
            shape = tuple(part["shape"][0].as_py())
            values = part["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            full = np.full((len(samples), *shape), np.nan)
            # A sample measured twice (two runs merged) has equal values; either will do.
            full[index[index >= 0]] = values.reshape(len(part), *shape)[index >= 0]
            found[index[index >= 0]] = True
            terms[term] = full
        terms = {term: values[found] for term, values in terms.items()}
        for array in (found, *terms.values()):
            array.setflags(write=False)
        return found, terms

    def _files(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Shard files that no other file replaces, with what made them."""
        records: list[tuple[Path, dict[str, Any]]] = []
        for path in sorted(self.shards.glob(SHARDS)):
            with _unreadable_named(path):
                records.append((path, json.loads((pq.read_schema(path).metadata or {})[META])))
        for index, (path, record) in enumerate(records):
            inside = set(record)
            others = [set(r) for i, (_, r) in enumerate(records) if i != index]
            if not any(inside < other or (inside == other and i < index) for i, other in enumerate(others)):
                yield path, record

    def _read(self, columns: list[str] | None, rows: Any = None) -> pa.Table:
        tables = [_read_shard(path, columns, rows) for path, _ in self._files()]
        return pa.concat_tables(tables).unify_dictionaries() if tables else SCHEMA.empty_table()

    def _write_shard(self, name: str, table: pa.Table, shards: Mapping[str, Any]) -> None:
        table = table.replace_schema_metadata({META: json.dumps(shards).encode()})
        self._replace(self.shards / f"{name}.parquet", lambda path: pq.write_table(table, path, **WRITING))

    def _write_joined(self, name: str, files: Iterable[Path], shards: Mapping[str, Any]) -> None:
        schema = SCHEMA.with_metadata({META: json.dumps(shards).encode()})

        def write(path: Path) -> None:
            with pq.ParquetWriter(path, schema, **WRITING) as joined:
                for table in _portions(files):
                    joined.write_table(table.replace_schema_metadata(schema.metadata))

        self._replace(self.shards / f"{name}.parquet", write)

    def _replace(self, path: Path, write: Any) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise _unwritable(self.folder, error) from error


def _read_shard(path: Path, columns: list[str] | None = None, rows: Any = None) -> pa.Table:
    with _unreadable_named(path):
        return pq.read_table(path, columns=columns, filters=rows, page_checksum_verification=True)


def _portions(paths: Iterable[Path]) -> Iterator[pa.Table]:
    """The measurements of many shards, joined up to `PORTION` bytes at a time."""
    held: list[pa.Table] = []
    for path in paths:
        for table in _streamed(path):
            held.append(table)
            if sum(one.nbytes for one in held) > PORTION:
                yield pa.concat_tables(held).unify_dictionaries()
                held = []
    if held:
        yield pa.concat_tables(held).unify_dictionaries()


def _streamed(path: Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """A shard a few rows at a time: a compacted one can be larger than memory."""
    names = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
    with (
        _unreadable_named(path),
        pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False, buffer_size=2**20) as file,
    ):
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns, use_threads=False):
            yield pa.Table.from_batches([batch]).cast(names)


class _DamagedError(UnavailableError):
    """A shard whose content is no shard's."""


@contextlib.contextmanager
def _unreadable_named(path: Path) -> Iterator[None]:
    """Name the shard, and tell damage from a system that does not let it be read."""
    try:
        yield
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        what = f"shard {path}"
        if getattr(error, "errno", None):
            raise UnavailableError(what, f"cannot be read: {brief(error)}", "make it readable") from error
        if isinstance(error, (OSError, KeyError, ValueError)):  # Arrow's own say damage with these
            fix = "run `mia-bench run` with the same options: it sets the file aside and measures its samples anew"
            raise _DamagedError(what, f"it is damaged: {brief(error)}", fix) from error
        fix = "free some memory, or read it with the version of pyarrow that wrote it"
        raise UnavailableError(what, f"cannot be read: {brief(error)}", fix) from error


def _unwritable(folder: Path, error: OSError) -> UsageError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return UsageError(
        f"run folder {folder}",
        f"cannot be written: {error.strerror or error}",
        "free some space and run the same command again; what is stored stays"
        if full
        else "choose a folder you may write to with --out",
    )
