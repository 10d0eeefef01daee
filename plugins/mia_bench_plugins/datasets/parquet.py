"""Parquet files with pictures in a column, as img2dataset writes them: `--dataset parquet:PATH,OPTION=VALUE,...`.

PATH is a file, or a folder of files; folder names from the top may say `members`, `nonmembers` and `calibration`.
Options name columns: `image` (by default the one that holds bytes), `caption` (`caption`, `text` or `txt`), `member`,
`split_column` (`split`), `id` (`id`, else folder and key), `group`. An empty one is not read: `split_column=`.

A row whose `status` is not `success`, or without a picture, is no sample; how many there are is said for each class,
since they are no random sample of it. img2dataset re-encodes at 256 px unless told otherwise (`--resize_mode no
--skip_reencode True`), which changes the pixels that an attack scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from mia_bench import Dataset, DatasetMeta, Sample, hookimpl
from mia_bench.errors import UnavailableError, UsageError
from mia_bench_plugins.datasets.labels import check
from mia_bench_plugins.datasets.options import parse
from mia_bench_plugins.datasets.tables import Columns, Lost, Place, pictures


class Parquet(Dataset):
    """Parquet files with pictures; options: image, caption, member, split_column, id, group (columns)."""

    meta = DatasetMeta(
        name="parquet",
        summary="Parquet files with pictures in a column, as img2dataset writes them",
        construction="as its member column or its folders say",
        biases="unknown: look at the blind control's row; rows that failed to download are no random sample",
        licence="the data's own",
        argument="PATH[,COLUMN=NAME,...]",
    )

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.place, self.columns = parse("parquet", argument, Columns)

    def samples(self) -> Sequence[Sample]:
        what, lost = f"dataset parquet:{self.place}", Lost()
        samples = [
            sample
            for path, place in files("parquet", self.place, ".parquet")
            for sample in pictures(path, place, self.columns, what, lost)
        ]
        lost.tell(what)
        if not samples:
            raise UnavailableError(what, "no row has a picture", "download them again, or name another PATH")
        check(samples, what)
        return samples


def files(name: str, place: str, suffix: str) -> Iterator[tuple[Path, Place]]:
    """The files below a path, or the file that it is, each with what its folders say.

    Raises:
        UsageError: No path.
        UnavailableError: It is not there, or has no such file.
    """
    if not place:
        raise UsageError(f"dataset {name}", "no path given", f"write --dataset {name}:PATH")
    root = Path(place).expanduser()
    what = f"dataset {name}:{place}"
    if root.is_file():
        yield root, Place("")
        return
    if not root.is_dir():
        raise UnavailableError(what, "no such file or folder", "check the path")
    found = visible(root, suffix)
    if not found:
        raise UnavailableError(what, f"no *{suffix} file in it", "check the path")
    for path in found:
        yield path, Place.of(path, root)


def visible(root: Path, suffix: str) -> list[Path]:
    """Files of this kind below a folder, hidden ones left out."""
    found = (p for p in root.rglob(f"*{suffix}") if p.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(root).parts))


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [Parquet]
