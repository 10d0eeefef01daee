"""Your own images: `--dataset folder:PATH`, with a metadata file or with folders named after the classes.

With `metadata.csv` or `metadata.jsonl` in PATH (the convention of Hugging Face's imagefolder), each row is a sample:

    file_name      path below PATH; the only column that must be there
    caption        or `text`
    member         true, 1, yes, member / false, 0, no, nonmember; empty when unknown
    split          audit (default) or calibration
    id             file_name by default
    group          near-duplicates share one; identical files share one by default
    word_weights   importance of each word of the caption, numbers separated by spaces

Other columns are named, kept as labels and read by no attack; one that is almost called as above is refused.

Without a metadata file every image below PATH is a sample. Its folders from the top may say `members` or `nonmembers`,
and `calibration`: `calibration/members/cat.png`. A caption is read from a text file beside it, `cat.txt`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mia_bench import Dataset, DatasetMeta, Sample, hookimpl
from mia_bench.dataset import Split
from mia_bench.errors import SampleError, UnavailableError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger("mia_bench")
METADATA = ("metadata.csv", "metadata.jsonl")
COLUMNS = {"file_name", "caption", "text", "member", "split", "id", "group", "word_weights"}
CAPTION = {"caption", "text"}  # two names of one column
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".jp2"}

MEMBERS = ("member", "members")
NONMEMBERS = ("nonmember", "nonmembers", "non-member", "non-members", "heldout")
TRUE = (*MEMBERS, "true", "1", "1.0", "yes")
FALSE = (*NONMEMBERS, "false", "0", "0.0", "no")
UNKNOWN = ("", "unknown", "nan", "none")
SPLITS: dict[str, Split] = {"audit": "audit", "calibration": "calibration"}
MISSING = "missing"  # content of a file that cannot be read; opening the sample says why


class Folder(Dataset):
    """A folder of images, with whatever is known about them."""

    meta = DatasetMeta(
        name="folder",
        summary="your own images: a folder with metadata.csv or metadata.jsonl, or with members/ and nonmembers/",
        construction="as the folder says",
        biases="unknown: look at the blind control's row",
        argument="PATH",
    )

    def samples(self) -> Sequence[Sample]:
        if not self.argument:
            raise UsageError("dataset folder", "no path given", "write --dataset folder:PATH")
        root = Path(self.argument).expanduser()
        what = f"dataset folder:{root}"
        if not root.is_dir():
            raise UnavailableError(what, "no such folder", "check the path")
        metadata = [root / name for name in METADATA if (root / name).is_file()]
        if len(metadata) > 1:
            raise UnavailableError(what, f"both {' and '.join(METADATA)}", "keep one of them")
        try:
            samples = list(_listed(metadata[0]) if metadata else _walked(root))
        except OSError as error:
            raise UnavailableError(what, str(error), "make it readable") from error
        if not samples:
            raise UnavailableError(what, "no images", "put images there, or correct its metadata file")
        _check(samples, what)
        return samples


def _listed(metadata: Path) -> Iterator[Sample]:
    """One sample for each row of a metadata file."""
    names: dict[str, None] = {}
    try:
        for line, row in _csv(metadata) if metadata.suffix == ".csv" else _jsonl(metadata):
            names.update(dict.fromkeys(row))
            try:
                yield _sample(metadata.parent, row)
            except ValueError as error:
                raise _malformed(metadata, line, str(error)) from error
    except UnicodeDecodeError as error:
        raise UnavailableError(str(metadata), "not UTF-8 text", "save it as UTF-8") from error
    _check_columns(metadata, names)


def _check_columns(metadata: Path, names: Iterable[str]) -> None:
    """Refuse a column that was meant to be read; name the others once."""
    others = sorted(set(names) - COLUMNS)
    absent = {name for name in COLUMNS - set(names) if len(name) > 3}  # `uid` and `idx` are names of their own
    if CAPTION & set(names):
        absent -= CAPTION
    for name in others:
        word = name.strip().lower()
        if close := get_close_matches(word, absent, n=1, cutoff=0.75 if len(word) > 4 else 0.8):  # `test` is not `text`
            what = f"{metadata}, column {name!r}"
            raise UnavailableError(what, f"not a column that is read; did you mean {close[0]!r}?", "rename it")
    if others:
        logger.warning("%s: kept as labels, read by no attack: %s", metadata, ", ".join(others))


def _malformed(metadata: Path, line: int, why: str) -> UnavailableError:
    return UnavailableError(f"{metadata}, line {line}", why, "correct that line")


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line number and cells of each row; a quoted cell may span lines."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            names = next(reader, [])
            if "file_name" not in names or len(set(names)) < len(names):
                raise _malformed(path, 1, "the header needs file_name, and each column once")
            line = reader.line_num + 1
            for cells in reader:
                if cells and len(cells) != len(names):
                    raise _malformed(path, line, f"{len(cells)} cells under {len(names)} columns")
                if cells:
                    yield line, dict(zip(names, cells, strict=True))
                line = reader.line_num + 1
        except csv.Error as error:
            raise _malformed(path, reader.line_num, str(error)) from error


def _jsonl(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Line number and fields of each row."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _malformed(path, number, f"not JSON: {error}") from error
            if not isinstance(row, dict):
                raise _malformed(path, number, "not a JSON object")
            yield number, {name: _cell(value) for name, value in row.items()}


def _cell(value: object) -> str:
    """A JSON value as a CSV cell would hold it; a list is separated by spaces."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def _sample(root: Path, row: Mapping[str, str]) -> Sample:
    """Raises ValueError: The row means nothing."""
    name = _inside(row.get("file_name", ""))
    caption = row.get("caption") or row.get("text") or None
    split = row.get("split", "").strip().lower() or "audit"
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is neither audit nor calibration")
    content = _content(root / name)
    return Sample(
        id=row.get("id", "").strip() or name,
        image=root / name,
        content=content,
        caption=caption,
        member=_member(row.get("member", "")),
        split=SPLITS[split],
        group=row.get("group", "").strip() or _group(name, content),
        labels={column: cell for column, cell in row.items() if column not in COLUMNS and cell},
        word_weights=_weights(row.get("word_weights", ""), caption),
    )


def _inside(name: str) -> str:
    """The file name, when it stays within the folder; links are followed, the folder's owner made them."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"file_name {name!r} leaves the folder")
    if not path.name or "\0" in name:
        raise ValueError(f"file_name {name!r} names no file")
    return str(path)


def _member(text: str) -> bool | None:
    word = text.strip().lower()
    if word not in TRUE + FALSE + UNKNOWN:
        raise ValueError(f"member {text!r} is neither true nor false nor empty")
    return None if word in UNKNOWN else word in TRUE


def _weights(text: str, caption: str | None) -> tuple[float, ...] | None:
    weights, words = text.split(), (caption or "").split(" ")
    if not weights:
        return None
    if len(weights) != len(words):
        raise ValueError(f"{len(weights)} word_weights for {len(words)} words of the caption")
    numbers = tuple(map(float, weights))
    if not all(map(math.isfinite, numbers)):
        raise ValueError("word_weights are not all finite")
    return numbers


def _walked(root: Path) -> Iterator[Sample]:
    """One sample for each image file below `root`; hidden ones are left out."""
    names = (path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in SUFFIXES)
    for name in sorted(names, key=Path.as_posix):
        path = root / name
        if any(part.startswith(".") for part in name.parts) or not path.is_file():
            continue
        member, split = _labels(name.parts[:-1])
        content, text = _content(path), path.with_suffix(".txt")
        caption: str | None = None
        image: Path | Callable[[], Image] = path
        try:
            caption = _caption(text)
        except (OSError, UnicodeDecodeError) as error:  # costs this sample, as a damaged image does
            image = partial(_refuse_caption, text, getattr(error, "strerror", None) or "not UTF-8 text")
        yield Sample(
            id=name.as_posix(),
            image=image,
            content=content,
            caption=caption,
            member=member,
            split=split,
            group=_group(name.as_posix(), content),
        )


def _labels(folders: Iterable[str]) -> tuple[bool | None, Split]:
    """What the folders say, from the top, up to the first that says nothing."""
    member: bool | None = None
    split: Split = "audit"
    for folder in map(str.lower, folders):
        if folder in MEMBERS + NONMEMBERS:
            member = folder in MEMBERS
        elif folder in SPLITS:
            split = SPLITS[folder]
        else:
            break
    return member, split


def _caption(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig").strip() or None
    except FileNotFoundError:
        return None


def _refuse_caption(path: Path, why: str) -> Image:
    raise SampleError(f"caption {path}", f"its caption {path.name} cannot be read: {why}", "save it as UTF-8")


def _content(path: Path) -> str:
    """sha256 of a file's bytes."""
    try:
        if path.is_file():  # reading a pipe would never end
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        pass
    return MISSING


def _group(name: str, content: str) -> str:
    """Identical files share a group."""
    return name if content == MISSING else f"sha256:{content}"


def _check(samples: Sequence[Sample], what: str) -> None:
    """Ids are unique Unicode; no file and no group is in both splits; no file is both member and non-member."""
    for sample in samples:
        try:
            f"{sample.id}{sample.caption}{sample.group}".encode()
        except UnicodeEncodeError as error:
            raise UnavailableError(what, f"{sample.id!a} is not valid Unicode", "rename it") from error
    read = [s for s in samples if s.content != MISSING]
    labelled = [s for s in read if s.member is not None]
    _refuse(_by(samples, lambda s: s.id), len, what, "duplicate id", "give each sample its own id")
    _refuse(
        _by(labelled, lambda s: s.content),
        _memberships,
        what,
        "one file labelled both ways",
        "keep one label",
    )
    _refuse(_by(read, lambda s: s.content), _splits, what, "one file in both splits", "remove one of them")
    _refuse(_by(samples, lambda s: s.group), _splits, what, "one group in both splits", "keep it in one")


def _by(samples: Iterable[Sample], key: Callable[[Sample], str]) -> list[list[Sample]]:
    lots: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        lots[key(sample)].append(sample)
    return list(lots.values())


def _splits(lot: Sequence[Sample]) -> int:
    return len({s.split for s in lot})


def _memberships(lot: Sequence[Sample]) -> int:
    return len({s.member for s in lot})


def _refuse(lots: list[list[Sample]], count: Callable[[Sequence[Sample]], int], what: str, why: str, fix: str) -> None:
    """One kind must be all there is in a lot; the message names the lots that have more."""
    bad = [lot for lot in lots if count(lot) > 1]
    if bad:
        names = ["/".join(dict.fromkeys(f"{s.id!r}" for s in lot)) for lot in bad[:3]]
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise UnavailableError(what, f"{why}: {', '.join(names)}{more}", fix)


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [Folder]
