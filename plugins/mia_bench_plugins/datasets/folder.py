"""Your own images: `--dataset folder:PATH`, with a metadata file or with folders named after the classes.

With `metadata.csv` or `metadata.jsonl` in PATH (the convention of Hugging Face's imagefolder), each row is a sample:

    file_name      path below PATH; the only column that must be there
    caption        or `text`
    member         true, 1, yes, member / false, 0, no, nonmember; empty when unknown
    split          audit (default) or calibration
    id             file_name by default
    group          near-duplicates share one; identical files share one by default
    word_weights   importance of each word of the caption, numbers separated by spaces

Other columns are kept as labels. Without a metadata file every image below PATH is a sample. Its folders from the top
may say `members` or `nonmembers`, and `calibration`: `calibration/members/cat.png`. A caption is read from a text file
beside it, `cat.txt`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from mia_bench import Dataset, DatasetMeta, Sample, hookimpl
from mia_bench.dataset import Split
from mia_bench.errors import UnavailableError, UsageError

METADATA = ("metadata.csv", "metadata.jsonl")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".jp2"}
MEMBER = ("member", "members", "true", "1", "1.0", "yes")
NONMEMBER = ("nonmember", "nonmembers", "non-member", "non-members", "heldout", "false", "0", "0.0", "no")
UNKNOWN = ("", "unknown", "nan", "none")
SPLITS: dict[str, Split] = {"": "audit", "audit": "audit", "calibration": "calibration"}
COLUMNS = {"file_name", "caption", "text", "member", "split", "id", "group", "word_weights"}
MISSING = "missing"  # content of a file that cannot be read; opening the sample says why


class Folder(Dataset):
    """A folder of images, with whatever is known about them."""

    meta = DatasetMeta(
        name="folder",
        summary="your own images: a folder with metadata.csv or metadata.jsonl, or with members/ and nonmembers/",
        construction="as the folder says",
        biases="unknown: read the blind control's row first",
        argument="PATH of the folder",
    )

    def samples(self) -> Sequence[Sample]:
        if not self.argument:
            raise UsageError("dataset folder", "no path given", "write --dataset folder:PATH")
        root = Path(self.argument).expanduser()
        if not root.is_dir():
            raise UnavailableError(f"dataset folder:{root}", "no such folder", "check the path")
        found = [name for name in METADATA if (root / name).is_file()]
        if len(found) > 1:
            raise UnavailableError(f"dataset folder:{root}", f"both {' and '.join(found)}", "keep one of them")
        try:
            samples = list(_listed(root / found[0]) if found else _walked(root))
        except OSError as error:
            raise UnavailableError(f"dataset folder:{root}", str(error), "make it readable") from error
        if not samples:
            raise UnavailableError(f"dataset folder:{root}", "no images", "put images or a metadata.csv there")
        _check(samples, root)
        return samples


def _listed(metadata: Path) -> Iterator[Sample]:
    """One sample for each row of a metadata file."""
    rows = _csv(metadata) if metadata.suffix == ".csv" else _jsonl(metadata)
    line = 0
    try:
        for line, row in rows:
            yield _sample(metadata.parent, row)
    except _RowError as error:
        at = error.line or line
        raise UnavailableError(f"{metadata}, line {at}", str(error), "correct that line") from error
    except UnicodeDecodeError as error:
        raise UnavailableError(str(metadata), "not UTF-8 text", "save it as UTF-8") from error


class _RowError(ValueError):
    """A row that cannot be understood; `line` where the reader knows better than the caller."""

    def __init__(self, why: str, line: int = 0) -> None:
        super().__init__(why)
        self.line = line


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            names = next(reader, [])
            if "file_name" not in names:
                raise _RowError("no column file_name", 1)
            if len(set(names)) < len(names):
                raise _RowError("two columns have the same name", 1)
            start = reader.line_num + 1
            for cells in reader:
                if cells and len(cells) != len(names):
                    raise _RowError(f"{len(cells)} cells under {len(names)} columns", start)
                if cells:
                    yield start, dict(zip(names, cells, strict=True))
                start = reader.line_num + 1
        except csv.Error as error:
            raise _RowError(str(error), reader.line_num) from error


def _jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _RowError(f"not JSON: {error}", number) from error
            if not isinstance(row, dict):
                raise _RowError("not a JSON object", number)
            yield number, {name: _text(value) for name, value in row.items()}


def _text(value: object) -> str:
    """A JSON value as it would stand in a CSV cell; a list is separated by spaces."""
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return "" if value is None else str(value)


def _sample(root: Path, row: Mapping[str, str]) -> Sample:
    name = _inside(row.get("file_name", ""))
    caption = row.get("caption") or row.get("text") or None
    split = row.get("split", "").strip().lower()
    if split not in SPLITS:
        raise _RowError(f"split {split!r} is neither audit nor calibration")
    return _make(
        root / name,
        row.get("id", "").strip() or name,
        caption=caption,
        member=_member(row.get("member", "")),
        split=SPLITS[split],
        group=row.get("group", "").strip(),
        labels={k: v for k, v in row.items() if k not in COLUMNS and v},
        word_weights=_weights(row.get("word_weights", ""), caption),
    )


def _inside(name: str) -> str:
    """The file name, when it stays within the folder. Links are followed: they are the owner's own doing."""
    path = PurePosixPath(name)
    if not path.name or "\0" in name:
        raise _RowError("file_name is empty" if not name else f"file_name {name!r} is no file's name")
    if path.is_absolute() or ".." in path.parts:
        raise _RowError(f"file_name {name!r} leaves the folder")
    return str(path)


def _member(text: str) -> bool | None:
    word = text.strip().lower()
    if word not in MEMBER + NONMEMBER + UNKNOWN:
        raise _RowError(f"member {text!r} is neither true nor false")
    return None if word in UNKNOWN else word in MEMBER


def _weights(text: str, caption: str | None) -> tuple[float, ...] | None:
    if not text.strip():
        return None
    try:
        weights = tuple(map(float, text.split()))
    except ValueError:
        raise _RowError(f"word_weights {text!r} are not numbers") from None
    words = len((caption or "").split())
    if len(weights) != words or not all(map(math.isfinite, weights)):
        raise _RowError(f"{len(weights)} word_weights for {words} words; one finite number for each is needed")
    return weights


def _walked(root: Path) -> Iterator[Sample]:
    """One sample for each image file below `root`, hidden ones left out."""
    names = (path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    for name in sorted(names, key=Path.as_posix):
        if any(part.startswith(".") for part in name.parts) or not (root / name).is_file():
            continue
        member: bool | None = None
        split: Split = "audit"
        for folder in map(str.lower, name.parts[:-1]):
            if folder.isalpha() and folder in SPLITS:
                split = SPLITS[folder]
            elif folder in MEMBER[:2] or folder in NONMEMBER[:5]:
                member = folder in MEMBER
            else:
                break
        yield _make(root / name, name.as_posix(), caption=_caption(root / name), member=member, split=split)


def _caption(image: Path) -> str | None:
    beside = image.with_suffix(".txt")
    try:
        return beside.read_text(encoding="utf-8-sig").strip() or None
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise UnavailableError(str(beside), "not UTF-8 text", "save it as UTF-8") from error


def _make(
    path: Path,
    name: str,
    *,
    caption: str | None,
    member: bool | None,
    split: Split,
    group: str = "",
    labels: Mapping[str, str] | None = None,
    word_weights: tuple[float, ...] | None = None,
) -> Sample:
    content = _content(path)
    return Sample(
        id=name,
        image=path,
        content=content,
        caption=caption,
        member=member,
        split=split,
        group=group or (name if content == MISSING else content),
        labels=labels or {},
        word_weights=word_weights,
    )


def _content(path: Path) -> str:
    try:
        if not path.is_file():  # reading a pipe would never end
            return MISSING
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return MISSING


def _check(samples: Sequence[Sample], root: Path) -> None:
    """Ids are unique; neither a group nor a file is in both splits; no file is both member and non-member."""
    what = f"dataset folder:{root}"
    for twice in _shared(samples, lambda s: s.id, lambda s: id(s)):
        raise UnavailableError(what, f"duplicate id {twice[0].id!r}", "give each row its own id")
    read = [s for s in samples if s.content != MISSING]
    for both in _shared(samples, lambda s: s.group, lambda s: s.split):
        why = f"group {both[0].group!r} is in both splits: {_names(both)}"
        raise UnavailableError(what, why, "move the group into one split")
    for both in _shared(read, lambda s: s.content, lambda s: s.split):
        why = f"one file in both splits: {_names(both)}"
        raise UnavailableError(what, why, "remove one of them")
    for both in _shared([s for s in read if s.member is not None], lambda s: s.content, lambda s: s.member):
        why = f"one file among members and non-members: {_names(both)}"
        raise UnavailableError(what, why, "correct the labels, or remove both")
