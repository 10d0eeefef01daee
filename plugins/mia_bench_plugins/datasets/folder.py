"""Your own images: `--dataset folder:PATH`, with a metadata file or with folders named after the classes.

Every image below PATH is a sample. Its folders from the top may say `members` or `nonmembers`, and `calibration` or
`memorised`: `calibration/members/cat.png`. A caption is read from a text file beside it, `cat.txt`.

A metadata file (`metadata.csv`, `metadata.jsonl` or `metadata.parquet`, the convention of Hugging Face's
imagefolder) lists the samples of the folder it lies in, one in each row. Its columns:

    file_name      path below that folder; the only column that must be there
    caption        or `text`
    member         true, 1, yes, member / false, 0, no, nonmember; empty when unknown
    split          audit (default), calibration or memorised
    id             file_name by default
    group          near-duplicates share one; identical files share one by default
    word_weights   importance of each word of the caption, numbers separated by spaces

Where a cell is empty, folders say it; where there is no caption column, text files do. Other columns are named,
kept as labels and read by no attack; one that is almost called as above is refused.

Nothing but images is needed. Without labels they are scored and nothing is compared; with non-members alone it is
counted how many of the others score above thresholds from those.
"""

from __future__ import annotations

from collections.abc import Sequence

from mia_bench import Dataset, DatasetMeta, Sample, hookimpl
from mia_bench_plugins.datasets import imagefolder
from mia_bench_plugins.datasets.labels import check
from mia_bench_plugins.datasets.options import folder_of


class Folder(Dataset):
    """A folder of images, with whatever is known about them."""

    meta = DatasetMeta(
        name="folder",
        summary="your own images: a folder with metadata.csv/jsonl/parquet, or with members/ and nonmembers/",
        construction="as the folder says",
        biases="unknown: look at the blind control's row",
        licence="your own",
        argument="PATH",
    )

    def samples(self) -> Sequence[Sample]:
        root = folder_of("folder", self.argument)
        what = f"dataset folder:{root}"
        samples = imagefolder.read(root, what)
        check(samples, what)
        return samples


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [Folder]
