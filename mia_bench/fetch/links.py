"""The contract of a dataset whose images are urls: it lists them, and its samples are what `mia-bench fetch` got."""

from __future__ import annotations

import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from mia_bench.cache import cache_folder
from mia_bench.dataset import Dataset, Sample, Split
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.fetch.images import Images, kept
from mia_bench.fetch.ledger import Ledger, settled
from mia_bench.fetch.survivors import Frozen, Survival, frozen, hashed, recorded


@dataclass(frozen=True, slots=True)
class Link:
    """One row of a list of urls.

    Attributes:
        id: Stable id, unique in its dataset.
        url: Where the image was.
        caption: The caption the image would have been trained with, or None.
        member: Whether the target was trained on it; None when unknown.
        split: As a sample's.
        labels: As a sample's.
    """

    id: str
    url: str
    caption: str | None = None
    member: bool | None = None
    split: Split = "audit"
    labels: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The class whose survival is counted."""
        if self.split == "memorised":
            return "memorised"
        return {True: "members", False: "nonmembers", None: "unlabelled"}[self.member]


class UrlList(Dataset):
    """Base class of a dataset whose images are fetched by url.

    A subclass gives `urls()`; it may need `download()` first. What follows the name is, separated by commas: a path,
    `balanced` or `balanced=SEED` (as many of each class as the smaller has, drawn with this seed), and `list=HASH` (an
    older list of survivors).

    Attributes:
        choices: What is not part of the path when `=` follows.
    """

    choices: ClassVar[tuple[str, ...]] = ("balanced", "list")

    @abstractmethod
    def urls(self) -> Sequence[Link]:
        """Every row of the list; reads files on this machine only.

        Raises:
            UnavailableError: The list cannot be read.
        """

    def download(self) -> None:
        """Get the list itself onto this machine, if it is not there; `mia-bench fetch` calls it.

        Raises:
            UnavailableError: It cannot be had.
        """

    @property
    def source(self) -> str:
        """Revision of the list of urls."""
        return self.meta.revision if not self.path else f"urls-{self.digest}"

    @property
    def spec(self) -> str:
        """As the command line has it."""
        return f"{self.meta.name}:{self.argument}" if self.argument else self.meta.name

    @property
    def command(self) -> str:
        """What fetches its images."""
        return f"mia-bench fetch {self.meta.name}" + (f":{self.path}" if self.path else "")

    def listed(self, digest: str) -> str:
        """The same with this list of survivors, as the command line has it."""
        parts = [part for part in self._parts if not part.startswith("list=")]
        return f"{self.meta.name}:{','.join([*parts, f'list={digest}'])}"

    @property
    def elsewhere(self) -> str:
        """What to do where there is no network."""
        caches = "MIA_BENCH_CACHE and HF_HOME"
        return f"run `{self.command}` where there is a network, without HF_HUB_OFFLINE, with the same {caches}"

    @cached_property
    def links(self) -> Sequence[Link]:
        """The rows of `urls()`, checked.

        Raises:
            UnavailableError: There is none, an id occurs twice, or an id or url is no text that can be written.
        """
        found = self.urls()
        if not found:
            raise UnavailableError(f"dataset {self.spec}", "its list of urls is empty", "check the list")
        if len({link.id for link in found}) < len(found):
            raise UnavailableError(f"dataset {self.spec}", "an id occurs twice in its list", "correct the list")
        for row, link in enumerate(found, 1):
            try:
                (link.id + link.url).encode()
            except UnicodeEncodeError as error:
                why = f"row {row} of its list, {link.id!a}: {link.url!a} is no text: {error.reason}"
                raise UnavailableError(f"dataset {self.spec}", why, "correct the list") from error
        return found

    @cached_property
    def digest(self) -> str:
        """Hash of ids and urls: copies of one list share what was fetched."""
        rows = [(link.id, link.kind, link.url) for link in self.links]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    @property
    def folder(self) -> Path:
        """Where its ledger, images and lists of survivors lie."""
        return cache_folder() / "fetched" / f"{self.meta.name}-{self.digest}"

    @cached_property
    def survivors(self) -> Frozen:
        """The frozen list that is in use.

        Raises:
            UnavailableError: Nothing has been fetched.
        """
        return frozen(self.folder, self.choice("list"), f"dataset {self.spec}", self.command)

    @property
    def revision(self) -> str:
        """The list of urls, the frozen list of survivors, and the draw."""
        draw = f"+balanced{self.seed}" if self.seed is not None else ""
        return f"{self.source}+survivors-{self.survivors.digest}{draw}"

    def survival(self) -> tuple[Survival, ...]:
        """How many urls of each class survived when the list in use was frozen; empty if that is not known."""
        facts, chosen = recorded(self.folder), self.choice("list")
        if not str(facts.get("list", "")).startswith(chosen):
            return ()
        return tuple(Survival.model_validate(row) for row in facts.get("survival", ()))

    def fetch(self, limit: int | None = None, allow_origin: tuple[str, int] | None = None) -> None:
        from mia_bench.fetch.run import FetchOptions, fetch, offline
        from mia_bench.fetch.watch import Logged

        if self.choice("list"):
            return
        if not offline():
            self.download()
        counts = self.survival()
        if counts and self._suffices(counts, limit):
            return
        what = f"dataset {self.spec}"
        if counts and offline():
            logging.getLogger("mia_bench").warning("%s: HF_HUB_OFFLINE is set; what was fetched is all there is", what)
            return
        instead = "after Ctrl-C the same command goes on"
        if counts:
            instead = f"--dataset {self.listed(recorded(self.folder)['list'])} does with what is"
        fetch(self, FetchOptions(survivors=limit, allow_origin=allow_origin), Logged(what, instead))

    def _suffices(self, counts: Iterable[Survival], limit: int | None) -> bool:
        """Whether there is as much as was asked for, or no more that a run should ask for."""
        short = {c.kind for c in counts if (c.tried < c.urls if limit is None else c.survived < limit)}
        rows = Ledger(self.folder / "ledger.jsonl").rows() if short else {}
        known = [rows.get(link.id) for link in self.links if link.kind in short]
        if limit is None:  # all there is, after one pass; another is for `mia-bench fetch`
            return None not in known
        return all(row is not None and (not row.error or settled(row)) for row in known)

    def samples(self) -> Sequence[Sample]:
        links, images = {link.id: link for link in self.links}, Images(self.folder / "images")
        rows: Sequence[tuple[str, str, str]] = self.survivors.rows
        if self.seed is not None:
            rows = balanced(rows, {link.kind for link in self.links}, self.seed)
        return [
            Sample(
                id=link.id,
                image=partial(kept, images.path(sha256), link.id, self.command),
                content=sha256,
                caption=link.caption,
                member=link.member,
                split=link.split,
                labels={"url": link.url, **link.labels},
            )
            for link, sha256 in ((links[i], sha256) for i, _, sha256 in rows)
        ]

    @property
    def path(self) -> str:
        """The path that was given, or nothing."""
        chosen = tuple(f"{name}=" for name in self.choices)
        return ",".join(p for p in self._parts if p != "balanced" and not p.startswith(chosen))

    @property
    def seed(self) -> int | None:
        """Seed of the balanced draw, or None if all are taken.

        Raises:
            UsageError: It is no number.
        """
        if "balanced" in self._parts:
            return 0
        text = self.choice("balanced")
        if text and not text.isdecimal():
            raise UsageError(f"dataset {self.spec}", f"the seed {text!r} is no number", "write balanced=0")
        return int(text) if text else None

    @property
    def _parts(self) -> list[str]:
        return [part for part in self.argument.split(",") if part]

    def choice(self, name: str) -> str:
        """What follows `name=`, or nothing."""
        return next((p.partition("=")[2] for p in self._parts if p.startswith(f"{name}=")), "")


def balanced(rows: Sequence[tuple[str, str, str]], kinds: Iterable[str], seed: int) -> Sequence[tuple[str, str, str]]:
    """As many rows of each class as the smallest has, drawn by the hash of seed and id; their order stays."""
    lots: dict[str, list[str]] = {kind: [] for kind in kinds}
    for name, kind, _ in rows:
        lots[kind].append(name)
    count = min(map(len, lots.values()), default=0)
    drawn = {i for lot in lots.values() for i in sorted(lot, key=lambda i: hashed(f"{seed}:{i}"))[:count]}
    return [row for row in rows if row[0] in drawn]
