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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mia_bench.errors import UnavailableError, UsageError, brief
from mia_bench.locks import hold
from mia_bench.shard_files import SCHEMA, DamagedError, read_shard, streamed, unreadable_named
from mia_bench.trace import span

logger = logging.getLogger("mia_bench")
META = b"mia_bench.shards"
MEASURED = "measured"  # of a record: samples by fingerprint, before those were dropped that another shard has too
ARTIFACTS = "artifacts"  # folder of pictures
WRITTEN = ("results.json", "scores.parquet", ARTIFACTS, "controls")  # beside plan and measurements
SHARDS = "[!.]*.parquet"
WRITING = {"compression": "zstd", "write_page_checksum": True}
PORTION = 2**26  # bytes of a row group that shards are joined to
KEY = ("fingerprint", "sample_id", "sample_digest", "term")
SAME = 1e-4  # of the largest value: what a measurement made twice may differ by, on other hardware
Key = tuple[str, str, str, str]
Row = tuple[float, ...]
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
    def locked(self, part: str | None = None) -> Iterator[None]:
        """Hold the folder against a second run, or only against another that measures the same part of it.

        Several parts are measured side by side: each adds shards of its own and deletes nothing. The system drops the
        lock of a killed process by itself.

        Args:
            part: Which; the whole if None.

        Raises:
            UsageError: Another run holds it, or the folder cannot be written, or it is no run's and holds something
                where a run would write.
        """
        with contextlib.ExitStack() as held:
            try:
                self._check_ours()
                self.shards.mkdir(parents=True, exist_ok=True)
                hold(held, self.folder, part)
            except OSError as error:
                raise _unwritable(self.folder, error) from error
            if part is None:
                for folder in (self.folder, self.shards):  # nobody else writes while we hold the lock
                    for left in (*folder.glob(".*.json.*.tmp"), *folder.glob(".*.parquet.*.tmp")):  # of a killed run
                        left.unlink(missing_ok=True)
            yield

    def _check_ours(self) -> None:
        """A run replaces files by these names; the plan, which every run writes first, says that they are a run's."""
        if (self.folder / "run.json").exists():
            return
        taken = [name for name in WRITTEN if os.path.lexists(self.folder / name)]
        if self.shards.is_dir():  # as a run leaves it that is killed before its plan is written
            taken += {self.shards.name for path in self.shards.iterdir() if not path.match(".*.tmp")}
        elif os.path.lexists(self.shards):
            taken.append(self.shards.name)
        if taken:
            why = f"it holds {' and '.join(taken)} but no run.json: it is no run's, and a run would replace them"
            raise UsageError(f"run folder {self.folder}", why, "choose another folder with --out")

    def write_json(self, name: str, content: Mapping[str, Any], indent: int | None = 1) -> None:
        """Replace a JSON file of the run at once."""
        text = json.dumps(content, indent=indent, allow_nan=False)
        self.replace(self.folder / name, lambda path: path.write_text(text + "\n", encoding="utf-8"))

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
                shutil.rmtree(path, ignore_errors=True)  # another shard may be at it
            else:
                path.unlink(missing_ok=True)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Replace a Parquet file of the run at once."""
        self.replace(self.folder / name, lambda path: pq.write_table(table, path, compression="zstd"))

    @span("storing")
    def add(
        self,
        ids: Sequence[str],
        digests: Sequence[str],
        measured: Mapping[str, Terms],
        provenance: Mapping[str, Any],
        name: str | None = None,
    ) -> str:
        """Store one batch as a shard.

        Args:
            ids: Sample ids, length B.
            digests: Their hashes.
            measured: fingerprint -> term -> float64 `(B, ...)`; a row of NaN in every term marks a sample that this
                attack could not measure and is left out.
            provenance: What made the shard; recorded, never compared.
            name: Of the shard, which replaces one of the same name; a new one if None.

        Returns:
            The shard's name.
        """
        name = name or uuid.uuid4().hex[:12]
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

    @span("storing")
    def compact(self, once: bool = False) -> None:
        """Join all shards into one file; harmless when interrupted.

        Args:
            once: Keep one of measurements that were made twice.

        Raises:
            UnavailableError: With `once`: two of the same sample differ.
        """
        replaced = set(self.shards.glob(SHARDS))  # with what an interrupted compaction left behind
        files = [(path, record) for path, record in self._files() if path in replaced]
        twice = self._twice() if once else {}
        if len(files) > 1 or twice:
            shards = {name: record for _, records in files for name, record in records.items()}
            for name, held in self.held({key[0] for key in twice}).items() if twice else ():
                counts = {f: len(samples) for f, samples in held.items()} | shards[name].get(MEASURED, {})
                shards[name] = {**shards[name], MEASURED: counts}
            self._write_joined(uuid.uuid4().hex[:12], [path for path, _ in files], shards, twice)
        else:
            replaced -= {path for path, _ in files}
        for path in replaced:
            path.unlink()

    def _twice(self) -> dict[Key, Row]:
        """What was measured more than once, and which of these values to keep: the least, whoever measured first.

        Raises:
            UnavailableError: They are not the same values.
        """
        counts = self._read(list(KEY)).group_by(list(KEY)).aggregate([([], "count_all")])
        repeated = dict.fromkeys(_keys(counts.filter(pc.greater(counts["count_all"], 1))))
        found: dict[Key, list[Row]] = {key: [] for key in repeated}
        for path, _ in self._files() if found else ():
            for table in streamed(path):
                for row, key in enumerate(_keys(table)):
                    if key in found:
                        found[key].append(tuple(table["values"][row].as_py()))
        for (_, sample, _, term), rows in found.items():
            if np.ptp(np.array(rows), axis=0).max() > SAME * np.abs(rows[0]).max():
                why = f"its {term} was measured twice with different outcomes: on machines or libraries that differ?"
                raise UnavailableError(
                    f"sample {sample!r}", why, "measure it once: delete the shards of one of the two"
                )
        return {key: min(rows) for key, rows in found.items()}

    def set_aside_damaged(self) -> None:
        """Rename shards that cannot be read to `*.damaged`, so that their samples count as not measured."""
        for path in sorted(self.shards.glob(SHARDS)):
            try:
                with unreadable_named(path):
                    json.loads((pq.read_schema(path).metadata or {})[META])
                for _ in streamed(path):
                    pass
            except DamagedError as error:
                try:
                    aside = path.rename(path.with_name(f"{path.name}.damaged"))
                except FileNotFoundError:  # another that measures a part of the run was faster
                    continue
                logger.warning("%s; set aside as %s, its samples are measured anew", error, aside.name)
            except UnavailableError:
                if path.exists():  # else, too, another was faster
                    raise

    def provenance(self) -> dict[str, dict[str, Any]]:
        """What made each shard, by shard name."""
        return {name: record for _, records in self._files() for name, record in records.items()}

    def done(self, fingerprints: Iterable[str]) -> dict[str, set[tuple[str, str]]]:
        """For each fingerprint, the (sample id, digest) pairs that have been measured."""
        found: dict[str, set[tuple[str, str]]] = {f: set() for f in fingerprints}
        pairs: dict[tuple[str, str], tuple[str, str]] = {}  # one object for a sample, however many attacks have it
        columns = ["fingerprint", "sample_id", "sample_digest"]
        for path, _ in self._files():
            for table in streamed(path, columns):
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
            with unreadable_named(path):
                records.append((path, json.loads((pq.read_schema(path).metadata or {})[META])))
        joined = [set(record) for _, record in records if len(record) > 1]  # only these can replace others
        last = {frozenset(record): index for index, (_, record) in enumerate(records)}
        for index, (path, record) in enumerate(records):
            if last[frozenset(record)] == index and not any(set(record) < other for other in joined):
                yield path, record

    def _read(self, columns: list[str] | None, rows: Any = None) -> pa.Table:
        tables = [read_shard(path, columns, rows) for path, _ in self._files()]
        return pa.concat_tables(tables).unify_dictionaries() if tables else SCHEMA.empty_table()

    def _write_shard(self, name: str, table: pa.Table, shards: Mapping[str, Any]) -> None:
        table = table.replace_schema_metadata({META: json.dumps(shards).encode()})
        self.replace(self.shards / f"{name}.parquet", lambda path: pq.write_table(table, path, **WRITING))

    def _write_joined(
        self, name: str, files: Iterable[Path], shards: Mapping[str, Any], twice: Mapping[Key, Row]
    ) -> None:
        schema = SCHEMA.with_metadata({META: json.dumps(shards).encode()})
        chosen = dict(twice)

        def write(path: Path) -> None:
            with pq.ParquetWriter(path, schema, **WRITING) as joined:
                for table in _portions(files):
                    kept = _once(table, chosen) if chosen else table
                    joined.write_table(kept.replace_schema_metadata(schema.metadata))

        self.replace(self.shards / f"{name}.parquet", write)

    def replace(self, path: Path, write: Callable[[Path], object]) -> None:
        """Put a file into its place at once.

        Args:
            path: Its place.
            write: Writes it elsewhere first.

        Raises:
            UsageError: It cannot be written.
        """
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _portions(paths: Iterable[Path]) -> Iterator[pa.Table]:
    """The measurements of many shards, joined up to `PORTION` bytes at a time."""
    held: list[pa.Table] = []
    for path in paths:
        for table in streamed(path):
            held.append(table)
            if sum(one.nbytes for one in held) > PORTION:
                yield pa.concat_tables(held).unify_dictionaries()
                held = []
    if held:
        yield pa.concat_tables(held).unify_dictionaries()


def _keys(table: pa.Table) -> Iterator[Key]:
    return zip(*(table[column].to_pylist() for column in KEY), strict=True)


def _once(table: pa.Table, chosen: dict[Key, Row]) -> pa.Table:
    """Rows that are there once, and of the others the chosen one the first time it comes."""
    kept = np.ones(len(table), dtype=bool)
    for row, key in enumerate(_keys(table)):
        if key in chosen:
            kept[row] = tuple(table["values"][row].as_py()) == chosen[key]
            if kept[row]:
                chosen[key] = ()  # no row is that
    return table.filter(pa.array(kept))


def _unwritable(folder: Path, error: OSError) -> UsageError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return UsageError(
        f"run folder {folder}",
        f"cannot be written: {error.strerror or error}",
        "free some space and run the same command again; what is stored stays"
        if full
        else "choose a folder you may write to with --out",
    )
