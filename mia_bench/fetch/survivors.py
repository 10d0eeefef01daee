"""Which urls survive, as a list that is frozen under the hash of its content."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from mia_bench.errors import UnavailableError, brief
from mia_bench.fetch.ledger import Row, writing

# Pictures that say that there is no picture; others show by being the same under several urls.
PLACEHOLDERS = {
    "9b5936f4006146e4e1e9025b474c02863c0b5614132ad40db4b925a10e8bfbb9": "Imgur, removed.png, 161 x 81 px",
}
PLACEHOLDER_URLS = re.compile(r"^https?://(i\.imgur\.com/removed\.png|s\.yimg\.com/pw/images/[^?]*photo_unavailable)")
DIGITS = 16  # of a list's hash, in its name


class Survival(BaseModel):
    """How many urls of a class survive.

    Attributes:
        kind: The class.
        urls: In the list.
        tried: Of those, how many were asked so far.
        survived: Of those, how many gave an image that can be used.
        low: Lower end of the 95 % Wilson interval of the share.
        high: Its upper end.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    urls: int
    tried: int
    survived: int
    low: float
    high: float


class Frozen(BaseModel):
    """A list of survivors: id, class and sha256 of each image, in the order of the ids' hashes.

    Attributes:
        digest: First digits of the sha256 of the list's file, which is named by it.
        rows: `(id, class, sha256)`.
    """

    model_config = ConfigDict(frozen=True)

    digest: str
    rows: tuple[tuple[str, str, str], ...]


def judge(rows: Iterable[Row]) -> dict[str, str]:
    """Why each fetched row does not survive, by id; empty for those that do.

    Besides what the ledger says: known placeholders go, and so does every image that was found under two urls, or in
    two classes. Of rows of one class that share a url, the first stays.
    """
    verdicts: dict[str, str] = {}
    same: defaultdict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=_order):
        verdicts[row.id] = row.error
        if not row.error:
            same[row.sha256].append(row)
    for sha256, lot in same.items():
        if sha256 in PLACEHOLDERS or any(PLACEHOLDER_URLS.match(row.final_url) for row in lot):
            bad, why = lot, "placeholder"
        elif len({row.kind for row in lot}) > 1:
            bad, why = lot, "both-classes"
        elif len({row.url for row in lot}) > 1:
            bad, why = lot, "repeated"
        else:
            bad, why = lot[1:], "repeated"
        verdicts.update((row.id, why) for row in bad)
    return verdicts


def survival(kinds: Mapping[str, int], rows: Iterable[Row], verdicts: Mapping[str, str]) -> list[Survival]:
    """Counts and interval of each class that was tried.

    Args:
        kinds: Urls in the list, by class.
        rows: Of the ledger.
        verdicts: As `judge` gives them.
    """
    from mia_bench.metrics.intervals import wilson

    tried, survived = Counter[str](), Counter[str]()
    for row in rows:
        if not row.attempts:  # its host was down; that says nothing of the image
            continue
        tried[row.kind] += 1
        survived[row.kind] += not verdicts[row.id]
    made = []
    for kind, urls in kinds.items():
        low, high = wilson(survived[kind], tried[kind]) if tried[kind] else (0.0, 1.0)
        made.append(Survival(kind=kind, urls=urls, tried=tried[kind], survived=survived[kind], low=low, high=high))
    return made


def freeze(folder: Path, rows: Iterable[Row], verdicts: Mapping[str, str], facts: Mapping[str, Any]) -> Frozen:
    """Write the list of survivors, and make it the one that is used.

    The same survivors give the same name, whenever and in whatever order they were fetched. Older lists stay.

    Args:
        folder: The dataset's own in the cache.
        rows: What was asked.
        verdicts: As `judge` gives them.
        facts: Recorded beside the list's name.

    Raises:
        UsageError: It cannot be written.
    """
    kept = tuple((row.id, row.kind, row.sha256) for row in sorted(rows, key=_order) if not verdicts[row.id])
    content = "".join(json.dumps(row) + "\n" for row in kept)
    digest = hashlib.sha256(content.encode()).hexdigest()[:DIGITS]
    _replace(folder / "survivors" / f"{digest}.jsonl", content)
    _replace(folder / "survivors.json", json.dumps({"list": digest, **facts}, indent=2) + "\n")
    return Frozen(digest=digest, rows=kept)


def recorded(folder: Path) -> dict[str, Any]:
    """What was recorded with the latest list; empty if there is none, or none that can be read."""
    try:
        found = json.loads((folder / "survivors.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def frozen(folder: Path, digest: str, what: str, command: str) -> Frozen:
    """A frozen list: that of this hash (or how it begins), or the latest.

    Args:
        folder: The dataset's own in the cache.
        digest: Some first digits of the list's hash; empty for the latest.
        what: For messages.
        command: What fetches the images.

    Raises:
        UnavailableError: There is none, or it was changed.
    """
    try:
        chosen = digest or str(json.loads((folder / "survivors.json").read_text(encoding="utf-8"))["list"])
    except FileNotFoundError:
        raise UnavailableError(what, "its images have not been fetched", f"run `{command}`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnavailableError(f"file {folder / 'survivors.json'}", brief(error), f"run `{command}`") from error
    found = sorted((folder / "survivors").glob(f"{chosen}*.jsonl")) if chosen.isalnum() else []
    if len(found) != 1:
        names = ", ".join(p.stem for p in sorted((folder / "survivors").glob("*.jsonl"))) or "none"
        why = f"no list of survivors {chosen!r}; there is {names}" if not found else f"{chosen!r} begins several lists"
        raise UnavailableError(what, why, f"name one of them, or run `{command}`")
    try:
        content = found[0].read_bytes()
        if hashlib.sha256(content).hexdigest()[:DIGITS] != found[0].stem:
            raise ValueError("its content is not what its name says")
        rows = tuple((str(i), str(k), str(s)) for i, k, s in map(json.loads, content.splitlines()))
    except (OSError, ValueError) as error:
        raise UnavailableError(f"list of survivors {found[0]}", brief(error), f"run `{command}`") from error
    return Frozen(digest=found[0].stem, rows=rows)


def hashed(text: str) -> bytes:
    """What rows are ordered by: as samples are, so that the first of a class are a random sample of it."""
    return hashlib.sha256(text.encode()).digest()


def _order(row: Row) -> bytes:
    return hashed(row.id)


def _replace(path: Path, content: str) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(path)


def lost(verdicts: Mapping[str, str]) -> dict[str, int]:
    """How many urls were lost to what, most first."""
    counts = Counter(why for why in verdicts.values() if why)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def kinds_of(links: Sequence[Any]) -> dict[str, int]:
    """Urls by class."""
    return dict(Counter(link.kind for link in links))
