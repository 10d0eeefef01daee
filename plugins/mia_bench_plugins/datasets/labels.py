"""The words that say what a sample is, in columns and in folder names, and what every list of samples must hold."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path, PurePosixPath

from mia_bench import Sample
from mia_bench.cache import cache_folder
from mia_bench.dataset import Split
from mia_bench.engine.line_cache import SHA256, LineCache
from mia_bench.errors import UnavailableError

MEMBERS = ("member", "members")
NONMEMBERS = ("nonmember", "nonmembers", "non-member", "non-members", "heldout", "holdout", "hold-out", "held-out")
LABELS = dict.fromkeys(MEMBERS, True) | dict.fromkeys(NONMEMBERS, False)
TRUE = (*MEMBERS, "true", "1", "1.0", "yes")
FALSE = (*NONMEMBERS, "false", "0", "0.0", "no")
UNKNOWN = ("", "unknown", "nan", "none")
SPLITS: dict[str, Split] = {"audit": "audit", "calibration": "calibration", "memorised": "memorised"}
SPELLINGS = {"memorized": "memorised"}
MISSING = "missing"  # content of a file that cannot be read; opening the sample says why
FILES = "files-1"  # name of the cache of files' hashes
SETTLED_NS = 2_000_000_000  # a file that changed since may change again unseen: clocks of file systems are coarse
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".jp2"}


def cell(value: object) -> str:
    """A value of a table as a CSV cell would hold it; a list is separated by spaces."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def plain(text: str) -> str:
    """A name or cell as the words here are spelt: `Non_Members` is `non-members`."""
    return re.sub(r"[\s_-]+", "-", text.strip().lower())


def said_in(name: str, words: Mapping[str, bool] = LABELS) -> bool | None:
    """What a longer name says by the words in it (`mia_coco_non_members`); None if none of them is there.

    Words are found whole, the longest first.

    Raises:
        ValueError: It says both, or denies what it says (`not_train`).
    """
    known = "|".join(map(re.escape, sorted({*LABELS, *words}, key=len, reverse=True)))
    found, rest = re.compile(rf"(?<![a-z0-9])(?:{known})(?![a-z0-9])"), plain(name)
    said = {words[word]: word for word in found.findall(rest) if word in words}
    if len(said) > 1:
        raise ValueError(f"{name!r} says both {said[True]!r} and {said[False]!r}")
    if said and re.search(r"(?<![a-z0-9])(?:non|not)(?![a-z0-9])", found.sub(" ", rest)):
        raise ValueError(f"{name!r} says {next(iter(said.values()))!r} and denies it")
    return next(iter(said), None)


def member_of(text: str) -> bool | None:
    """Whether a cell says member, non-member or nothing.

    Raises:
        ValueError: It says something else.
    """
    word = plain(text)
    if word not in TRUE + FALSE + UNKNOWN:
        raise ValueError(f"member {text!r} is neither true nor false nor empty")
    return None if word in UNKNOWN else word in TRUE


def split_of(text: str) -> Split:
    """The split that a cell names; audit if it is empty.

    Raises:
        ValueError: It names another.
    """
    word = text.strip().lower() or "audit"
    split = SPLITS.get(SPELLINGS.get(word, word))
    if split is None:
        raise ValueError(f"split {text.strip()!r} is neither audit nor calibration nor memorised")
    return split


def labels_of(folders: Iterable[str]) -> tuple[bool | None, Split]:
    """What the folders say, from the top, up to the first that says nothing.

    Raises:
        UnavailableError: One denies what another said.
    """
    members, splits = dict[bool, str](), dict[Split, str]()
    for folder in folders:
        word = plain(folder)
        if word in LABELS:
            members[LABELS[word]] = folder
        elif (word := SPELLINGS.get(word, word)) in SPLITS:
            splits[SPLITS[word]] = folder
        else:
            break
    for said in (members, splits):
        if len(said) > 1:
            first, second = list(said.values())[:2]
            raise UnavailableError(f"folder {first}", f"{second} is in it, which says otherwise", "keep them apart")
    split: Split = next(iter(splits), "audit")
    return next(iter(members), None), split


def content_of(path: Path) -> str:
    """sha256 of a file's bytes, remembered between runs for as long as the file stays as it is."""
    try:
        if path.is_file():  # reading a pipe would never end
            state, known = path.stat(), _hashes(cache_folder())
            facts = (path.absolute(), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
            key = hashlib.sha256(" ".join(map(str, facts)).encode(errors="surrogateescape")).hexdigest()
            if SHA256.fullmatch(found := known.known.get(key, "")):
                return found
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > SETTLED_NS:
                known.add({key: found})
            return found
    except OSError:
        pass
    return MISSING


@lru_cache(maxsize=1)
def _hashes(_: Path) -> LineCache:
    """Read once for each cache folder."""
    return LineCache(FILES)


def group_of(name: str, content: str) -> str:
    """Identical files share a group."""
    return name if content == MISSING else f"sha256:{content}"


def check(samples: Sequence[Sample], what: str) -> None:
    """Refuse a list that would mislead.

    Raises:
        UnavailableError: Ids are not unique or no Unicode, a file or a group is in two splits, or a file is both
            member and non-member.
    """
    check_ids(samples, what)
    read = [s for s in samples if s.content != MISSING]
    labelled = [s for s in read if s.member is not None]
    _refuse(_by(labelled, lambda s: s.content), _memberships, what, "one file labelled both ways", "keep one label")
    _refuse(_by(read, lambda s: s.content), _splits, what, "one file in both splits", "remove one of them")
    _refuse(_by(samples, lambda s: s.group), _splits, what, "one group in both splits", "keep it in one")
    _hint(samples, what)


def check_ids(samples: Sequence[Sample], what: str) -> None:
    """Refuse ids that are not unique, and text that is no Unicode.

    Raises:
        UnavailableError: Naming the first few.
    """
    for sample in samples:
        try:
            f"{sample.id}{sample.caption}{sample.group}".encode()
        except UnicodeEncodeError as error:
            raise UnavailableError(what, f"{sample.id!a} is not valid Unicode", "rename it") from error
    _refuse(_by(samples, lambda s: s.id), len, what, "duplicate id", "give each sample its own id")


def _hint(samples: Iterable[Sample], what: str) -> None:
    """Name folders that look like labels of samples that have none."""
    folders = {PurePosixPath(s.id).parent for s in samples if s.member is None}
    unread = {part for folder in folders for part in folder.parts}
    if alike := sorted(filter(_alike, unread)):
        text = "%s: images without a label lie in %s, which is not read; name folders members, nonmembers, at the top"
        logging.getLogger("mia_bench").warning(text, what, ", ".join(map(repr, alike)))


def _alike(name: str) -> bool:
    try:
        return said_in(name) is not None or bool(get_close_matches(plain(name), LABELS, n=1, cutoff=0.85))
    except ValueError:  # it contradicts itself
        return True


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
