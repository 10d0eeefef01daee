"""Reads per-sample scores that other programs wrote: CSV, Parquet and NPZ files, from strangers.

Nothing in a file is run: arrays of Python objects are refused. What is wrong is told with its file and row (from 1, the
header apart).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mia_bench.errors import UnavailableError, UsageError, brief

MAX_SCORES = 20_000_000  # of one file: about 2 GB of memory
MAX_UNPACKED = 64 * MAX_SCORES  # bytes of a Parquet file's columns
ROWS_AT_ONCE = 1 << 14  # of a Parquet file
MAX_LINE = 1 << 20  # bytes
UNREADABLE = (OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, zlib.error, zipfile.BadZipFile)
MAX_TEXT = 500  # characters of an id or a label
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "sample": ("sample", "sample_id", "id"),
    "label": ("label", "member"),
    "score": ("score",),
    "attack": ("attack",),
    "preset": ("preset",),
    "split": ("split",),
    "timestep": ("timestep", "t", "step"),
}
"""What a column may be called if the user does not say."""

NEEDED = ("sample", "label", "score")
MEMBER: Mapping[str, bool | None] = {
    **dict.fromkeys(("1", "1.0", "true", "member"), True),
    **dict.fromkeys(("0", "0.0", "false", "nonmember", "non-member"), False),
    **dict.fromkeys(("", "none", "null", "unknown"), None),
}
FORMATS = "write CSV (.csv, .csv.gz), Parquet (.parquet) or NumPy arrays (.npz)"
PICKLED = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin", ".joblib", ".npy"}


@dataclass(frozen=True, eq=False)
class Coded:
    """A column of texts: `names[codes[row]]`, codes int64 `(R,)`."""

    codes: NDArray[np.int64]
    names: tuple[str, ...]

    def __getitem__(self, row: int) -> str:
        return self.names[int(self.codes[row])]


@dataclass(frozen=True, eq=False)
class ScoreRows:
    """One file, column by column; all of one length R.

    Attributes:
        path: The file.
        sample: Ids.
        member: int8 `(R,)`: 1 for a member, 0 for a non-member, -1 where that is unknown.
        score: float64 `(R,)`, no NaN.
        attack: Labels; None where the file has none.
        split: Splits; None likewise.
        timestep: Which of a sample's scores it is; None likewise.
    """

    path: Path
    sample: Coded
    member: NDArray[np.int8]
    score: NDArray[np.float64]
    attack: Coded | None
    split: Coded | None
    timestep: Coded | None

    def wrong(self, row: int, why: str, fix: str) -> UnavailableError:
        """An error that names a row."""
        return _wrong(self.path, row, why, fix)


def read_score_file(path: Path, columns: Mapping[str, str]) -> ScoreRows:
    """Read one file.

    Args:
        path: Its ending says what it is.
        columns: Role (see `COLUMNS`) -> column, where the user said so.

    Raises:
        UnavailableError: It cannot be read, is none of the known kinds or too large, lacks a column, or holds what is
            no score, label or id.
    """
    if not path.is_file():
        why = "it is a folder" if path.is_dir() else "no such file"
        raise UnavailableError(f"scores {path}", why, "name a file of scores")
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    readers = {"csv": _csv, "parquet": _parquet, "npz": _npz}
    if kind not in readers or (kind != "csv" and path.suffix.lower() == ".gz"):
        pickled = "it may hold pickled objects, and reading those runs code" if path.suffix.lower() in PICKLED else ""
        raise UnavailableError(f"scores {path}", pickled or "not a kind of file that is read", FORMATS)
    try:
        table = readers[kind](path, columns)
    except (*UNREADABLE, pa.ArrowException) as error:
        raise UnavailableError(f"scores {path}", f"cannot be read: {brief(error)}", FORMATS) from error
    if not len(table):
        raise UnavailableError(f"scores {path}", "it has no rows", FORMATS)
    return _checked(path, table)


def _names(path: Path, present: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Role -> column of the file."""
    found: dict[str, str] = {}
    for role, usual in COLUMNS.items():
        names = [columns[role]] if role in columns else [name for name in usual if name in present]
        if role in columns and columns[role] not in present:
            why = f"it has no column {columns[role]!r}, only {', '.join(present[:20])}"
            raise UnavailableError(f"scores {path}", why, f"name another: --column {role}=NAME")
        if names:
            if present.count(names[0]) > 1:
                raise UnavailableError(f"scores {path}", f"two columns are called {names[0]!r}", "rename one")
            found[role] = names[0]
        elif role in NEEDED:
            why = f"it has no column {' or '.join(usual)}, only {', '.join(present[:20])}"
            unknown = "; leave cells of unknown membership empty" if role == "label" else ""
            raise UnavailableError(f"scores {path}", why, f"name it: --column {role}=NAME{unknown}")
    return found


def _few(path: Path, count: int) -> None:
    if count > MAX_SCORES:
        why = f"more than {MAX_SCORES:,} scores"
        raise UnavailableError(f"scores {path}", why, "reduce a sample's scores to one number before")


def _csv(path: Path, columns: Mapping[str, str]) -> pa.Table:
    """The needed columns as texts, a block at a time: a small `.gz` may unpack to more than memory."""
    reading = pacsv.ReadOptions(block_size=MAX_LINE)
    with pacsv.open_csv(path, read_options=reading) as reader:
        names = _names(path, reader.schema.names, columns)
    converting = pacsv.ConvertOptions(
        include_columns=[*names.values()],
        column_types=dict.fromkeys(names.values(), pa.string()),
        strings_can_be_null=False,
    )
    kept: list[pa.RecordBatch] = []
    count = 0
    with pacsv.open_csv(path, read_options=reading, convert_options=converting) as reader:
        for batch in reader:
            count += batch.num_rows
            _few(path, count)
            kept.append(batch)
        return pa.Table.from_batches(kept, schema=reader.schema).rename_columns([*names])


def _parquet(path: Path, columns: Mapping[str, str]) -> pa.Table:
    """The needed columns, a batch at a time and texts by codes: a long text may be repeated at no cost in the file."""
    with pq.ParquetFile(path) as file:
        _few(path, file.metadata.num_rows)
        schema = file.schema_arrow
        names = _names(path, schema.names, columns)
        for role, name in names.items():
            _check_kind(path, role, schema.field(name).type)
        size = _unpacked(file.metadata, set(names.values()))
    if size > MAX_UNPACKED:
        raise UnavailableError(f"scores {path}", f"{size:,} bytes unpacked", "shorten its texts, or split the file")
    texts = [name for name in names.values() if _is_text(schema.field(name).type)]
    kept: list[pa.Table] = []
    row = 0
    with pq.ParquetFile(path, read_dictionary=texts) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=[*names.values()]):
            table = pa.Table.from_batches([batch]).select([*names.values()]).rename_columns([*names])
            for i, role in enumerate(names):
                kind = table[role].type
                if _is_text(kind):
                    table = table.set_column(i, role, _short(path, role, table[role], row))
                elif pa.types.is_dictionary(kind):
                    table = table.set_column(i, role, table[role].cast(kind.value_type))
            kept.append(table)
            row += len(table)
    return pa.concat_tables(kept) if kept else schema.empty_table()


def _check_kind(path: Path, role: str, kind: pa.DataType) -> None:
    """Lists, and texts of one fixed length, may unpack to any size."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (_is_text(kind) or pa.types.is_primitive(kind) or pa.types.is_null(kind) or pa.types.is_decimal(kind)):
        raise UnavailableError(f"scores {path}", f"the column for {role} holds {kind}", "write texts or numbers")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def _unpacked(metadata: pq.FileMetaData, names: set[str]) -> int:
    """Bytes of these columns' pages."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(metadata.num_columns)]
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in names)


def _short(path: Path, role: str, column: pa.ChunkedArray, row: int) -> pa.Array:
    """A batch of texts with only the codes that it uses, in the order they occur; it starts at this row.

    Raises:
        UnavailableError: One is too long.
    """
    coded = column.combine_chunks()
    coded = coded if pa.types.is_dictionary(coded.type) else coded.dictionary_encode()
    lengths = pc.take(pc.binary_length(coded.dictionary), coded.indices)
    if (pc.max(lengths).as_py() or 0) > 4 * MAX_TEXT:  # bytes; `_coded` counts characters
        at = pc.index(lengths, pc.max(lengths)).as_py()
        raise _wrong(path, row + at, f"{role} has {lengths[at].as_py():,} bytes", f"{MAX_TEXT} characters are allowed")
    return pc.fill_null(coded.cast(pa.string()), "").dictionary_encode()


def _npz(path: Path, columns: Mapping[str, str]) -> pa.Table:
    """Arrays by the names of columns; scores may be `(N, T)`: T scores of each sample."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > 16 * MAX_SCORES:
        raise UnavailableError(f"scores {path}", f"{size:,} bytes unpacked", "keep the needed arrays alone")
    with np.load(path, allow_pickle=False) as file:
        present = list(file.files)
        numbered = not any(name in present for name in COLUMNS["sample"]) and "sample" not in columns
        names = _names(path, [*present, *(["sample"] if numbered else [])], columns)
        score = np.asarray(file[names["score"]])
        arrays = {role: np.asarray(file[name]) for role, name in names.items() if name in present}
    if score.ndim not in (1, 2):
        raise ValueError(f"{names['score']} has shape {score.shape}, not (samples,) or (samples, timesteps)")
    _few(path, score.size)
    each = score.shape[1] if score.ndim == 2 else 1
    if numbered:
        arrays["sample"] = np.arange(len(score))
    if score.ndim == 2:
        if "timestep" in arrays and arrays["timestep"].shape != (each,):
            raise ValueError(f"timestep has shape {arrays['timestep'].shape}, not ({each},) as the scores' columns")
        steps = arrays.pop("timestep", np.arange(each))
        arrays = {role: np.repeat(values, each) for role, values in arrays.items() if role != "score"}
        arrays |= {"score": score.ravel(), "timestep": np.tile(steps, len(score))}
    lengths = {role: values.shape for role, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"arrays differ in length: {', '.join(f'{names.get(r, r)} {s}' for r, s in lengths.items())}")
    return pa.table({role: pa.array(values) for role, values in arrays.items()})


def _checked(path: Path, table: pa.Table) -> ScoreRows:
    """Texts to labels and numbers; the first row that is wrong is named."""
    text = {role: _coded(path, role, table[role]) for role in table.column_names if role != "score"}
    for role in ("sample", "attack"):
        if role in text and "" in text[role].names:
            row = _first(text[role], text[role].names.index(""))
            raise _wrong(path, row, f"{role} is empty", f"name every {role}")
    label = text["label"]
    meant = [MEMBER.get(name.strip().lower(), "wrong") for name in label.names]
    if "wrong" in meant:
        row = _first(label, meant.index("wrong"))
        why = f"label {label[row]!r} is neither 1 (member) nor 0 (non-member)"
        raise _wrong(path, row, why, "write 1, 0, or nothing where membership is unknown")
    member = np.array([-1 if one is None else int(one) for one in meant], dtype=np.int8)[label.codes]
    return ScoreRows(
        path,
        text["sample"],
        member,
        _numbers(path, table["score"]),
        _labels(text.get("attack"), text.get("preset")),
        text.get("split"),
        text.get("timestep"),
    )


def _labels(attack: Coded | None, preset: Coded | None) -> Coded | None:
    """`attack@preset` where a file has both, as `scores.parquet` of a run does."""
    if attack is None or preset is None:
        return attack
    both, codes = np.unique(np.stack([attack.codes, preset.codes]), axis=1, return_inverse=True)
    pairs = [(attack.names[a], preset.names[p]) for a, p in both.T.tolist()]
    return Coded(codes.ravel(), tuple(f"{a}@{p}" if p else a for a, p in pairs))


def _coded(path: Path, role: str, column: pa.ChunkedArray) -> Coded:
    """A column as texts, gaps as empty ones."""
    try:
        if pa.types.is_dictionary(column.type):
            coded = column.unify_dictionaries().combine_chunks()
        else:
            coded = pc.fill_null(column.cast(pa.string()), "").combine_chunks().dictionary_encode()
    except pa.ArrowException as error:
        why = f"the column for {role} holds {column.type}"
        raise UnavailableError(f"scores {path}", why, "write texts or numbers") from error
    found = Coded(coded.indices.to_numpy().astype(np.int64), tuple(coded.dictionary.to_pylist()))
    if (longest := max(found.names, key=len, default="")) and len(longest) > MAX_TEXT:
        row = _first(found, found.names.index(longest))
        raise _wrong(path, row, f"{role} has {len(longest):,} characters", f"{MAX_TEXT} are allowed")
    return found


def _numbers(path: Path, column: pa.ChunkedArray) -> NDArray[np.float64]:
    try:
        if pa.types.is_dictionary(column.type):
            coded = _coded(path, "score", column)
            return _known(path, pa.array(coded.names).cast(pa.float64()).to_numpy()[coded.codes])
        return _known(path, column.cast(pa.float64()).to_numpy().astype(np.float64))
    except pa.ArrowException:
        texts = _coded(path, "score", column)
        for i, text in enumerate(texts.names):
            try:
                pa.scalar(text).cast(pa.float64())
            except pa.ArrowException:
                why = f"score {text!r} is no number" if text else "the score is missing"
                raise _wrong(path, _first(texts, i), why, "give every row a number, written as 0.25 or 1e-3") from None
        raise


def _known(path: Path, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if (missing := np.isnan(values)).any():
        why = f"the score is NaN or missing ({int(missing.sum())} such rows)"
        raise _wrong(path, int(np.argmax(missing)), why, "leave samples without a score out of the file")
    return values


def _first(column: Coded, code: int) -> int:
    return int(np.argmax(column.codes == code))


def _wrong(path: Path, row: int, why: str, fix: str) -> UnavailableError:
    return UnavailableError(f"scores {path}, row {row + 1}", why if len(why) < 300 else why[:300] + " ...", fix)


def roles(given: Sequence[str]) -> dict[str, str]:
    """`--column ROLE=NAME` as a mapping.

    Raises:
        UsageError: It has another form, or an unknown role.
    """
    found: dict[str, str] = {}
    for text in given:
        role, _, name = text.partition("=")
        if role not in COLUMNS or not name:
            raise UsageError(
                f"--column {text}", f"not ROLE=NAME with one of {', '.join(COLUMNS)}", "--column score=loss"
            )
        found[role] = name
    return found
