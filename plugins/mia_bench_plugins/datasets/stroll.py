"""STROLL: 100 photographs that a model was tuned on, and a look-alike of each: `--dataset stroll[:PATH]`.

Without PATH from the hub (faridlab/stroll, 133 MB, at a pinned revision); PATH is a copy of that repository.
Options, as in `stroll:,captions=alternate`:

    captions   `base` (default), or `alternate`: another caption of each member, that it was not tuned with. Look-alikes
               have one caption only
    revision   another revision of the hub's
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from mia_bench import Dataset, DatasetMeta, Sample, hookimpl
from mia_bench.errors import UnavailableError
from mia_bench_plugins.datasets.hub import snapshot
from mia_bench_plugins.datasets.labels import check_ids, content_of
from mia_bench_plugins.datasets.options import Options, folder_of, parse

REPOSITORY, REVISION = "faridlab/stroll", "f0a900eca421320d5e74a4dc8ead44db7eda2d40"
TABLE = "annotations.csv"
FILE, BASE, ALTERNATE = "image-file-{}", "image-caption-base-{}", "image-caption-alternate-{}"
SIDES = {"intraining": True, "outoftraining": False}


class StrollOptions(Options):
    """Options of `stroll`.

    Attributes:
        captions: Which captions of members.
        revision: Of the hub's repository.
    """

    captions: Literal["base", "alternate"] = "base"
    revision: str = REVISION


class Stroll(Dataset):
    """Street objects in San Francisco, 100 in training and 100 look-alikes; options: captions (base, alternate),
    revision.
    """

    meta = DatasetMeta(
        name="stroll",
        summary="STROLL: 100 street photographs that Stable Diffusion v2-1 was tuned on, and 100 look-alikes",
        construction="pairs of similar objects photographed for this purpose in July 2024; one of each pair was tuned "
        "on. No tuned checkpoint is public: name your own with --target",
        biases="nearly none between the sides of a pair; captions by ChatGPT-4o. 100 of each class resolve no "
        "false-positive rate below 10%",
        licence="Zenodo's release CC-BY-4.0",
        citation="Bohacek, Farid, 2025 (arXiv:2501.06399), DOI 10.57967/hf/3928",
        revision=REVISION,
        argument="[PATH][,OPTION=VALUE,...]",
    )

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.place, self.options = parse("stroll", argument, StrollOptions)

    @cached_property
    def found(self) -> tuple[Path, str]:
        """The folder, and the commit that it holds if it came from the hub."""
        if self.place:
            return folder_of("stroll", self.place, "leave it out to read the hub's"), ""
        return snapshot("stroll", REPOSITORY, self.options.revision)

    @property
    def revision(self) -> str:
        """Commit on the hub, or nothing for a folder."""
        return self.found[1]

    def samples(self) -> Sequence[Sample]:
        root = self.found[0]
        tables = [p for p in (root / "data" / TABLE, root / TABLE) if p.is_file()]
        if not tables:
            raise UnavailableError(f"dataset stroll:{root}", f"no {TABLE}", "give a copy of the hub's repository")
        try:
            with tables[0].open(encoding="utf-8-sig", newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UnavailableError(str(tables[0]), str(error), "get the file anew") from error
        samples = [s for number, row in enumerate(rows) for s in self._pair(tables[0], number, row)]
        if not samples:
            raise UnavailableError(str(tables[0]), "no rows", "get the file anew")
        check_ids(samples, f"dataset stroll:{root}")
        return samples

    def _pair(self, table: Path, number: int, row: Mapping[str, str | None]) -> Iterator[Sample]:
        """Both images of a row; they are near-duplicates, so they share a group."""
        for side, member in SIDES.items():
            file, base = row.get(FILE.format(side)) or "", row.get(BASE.format(side)) or ""
            if not file or PurePosixPath(file).is_absolute() or ".." in PurePosixPath(file).parts:
                raise UnavailableError(f"{table}, line {number + 2}", f"names no file {side}", "get the file anew")
            alternate = row.get(ALTERNATE.format(side)) or ""
            image = _located(table.parent, file)
            yield Sample(
                id=f"{number:03d}-{side}",
                image=image,
                content=content_of(image),
                caption=(alternate if self.options.captions == "alternate" else "") or base or None,
                member=member,
                group=f"pair-{number:03d}",
                labels={"alternate caption": alternate} if alternate else {},
            )


def _located(folder: Path, file: str) -> Path:
    """The image that a row names: beside the table, in a folder of its own there, or from the repository's root."""
    places = [folder / file, folder / "images" / file, folder.parent / file]
    return next((p for p in places if p.is_file()), places[0])


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [Stroll]
