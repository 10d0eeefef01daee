"""Webster's list: captions whose images Stable Diffusion v1 memorised, as urls (Webster 2023)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from mia_bench import Dataset, DatasetMeta, Sample, hookimpl
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.fetch.links import Link, UrlList
from mia_bench_plugins.datasets.laion_mi import LaionMi

SOURCE = "examples/sdv1_500_memorized.jsonl of https://github.com/YuxinWenRick/diffusion_memorization"


class Webster(UrlList):
    """500 captions with the urls of their images, all memorised members; the images have to be fetched.

    Alone there is nothing to tell them from: `beside=laion-mi` adds the images that were fetched of LAION-mi.
    """

    meta = DatasetMeta(
        name="webster",
        summary="500 images that Stable Diffusion v1 memorised, as urls; `mia-bench fetch webster:FILE` first",
        construction="images of LAION that Stable Diffusion v1 reproduces from their captions",
        biases="many show one picture under several captions; they come from few hosts",
        licence="none stated; the images belong to their makers",
        citation="Webster, A Reproducible Extraction of Training Images from Diffusion Models, 2023, arXiv:2305.08694; "
        "list as used by Wen et al., ICLR 2024",
        argument="FILE[,beside=laion-mi][,list=HASH]",
    )
    choices = (*UrlList.choices, "beside")

    @property
    def others(self) -> LaionMi | None:
        """LAION-mi, whose images memorised ones are sought among, if asked for.

        Raises:
            UsageError: Another dataset is asked for.
        """
        name, _, argument = self.choice("beside").partition(":")
        if name not in ("", LaionMi.meta.name):
            raise UsageError(f"dataset {self.spec}", f"{name} cannot stand beside it", "write beside=laion-mi")
        return LaionMi(argument) if name else None

    @property
    def revision(self) -> str:
        return super().revision + (f" beside {self.others.revision}" if self.others else "")

    def fetch(self, limit: int | None = None, allow_origin: tuple[str, int] | None = None) -> None:
        super().fetch(limit, allow_origin)
        if self.others:
            self.others.fetch(limit, allow_origin)

    def samples(self) -> Sequence[Sample]:
        memorised = super().samples()
        content = {sample.content for sample in memorised}
        others = self.others.samples() if self.others else ()
        return [*memorised, *(sample for sample in others if sample.content not in content)]

    def urls(self) -> Sequence[Link]:
        if not self.path:
            raise UsageError("dataset webster", "no file given", f"get {SOURCE}, and write webster:FILE")
        path = Path(self.path).expanduser()
        try:
            return list(_read(path))
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "not UTF-8 text"
            raise UnavailableError(f"list of urls {path}", why, f"get {SOURCE}") from error


def _read(path: Path) -> Iterator[Link]:
    """One row for each line: `caption`, `index` (of the image in LAION; the id is made of it) and `url`."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                caption, index, url = str(row["caption"]), int(row["index"]), str(row["url"])
                (caption + url).encode()
            except (ValueError, OverflowError, KeyError, TypeError, RecursionError) as error:
                why = "not a JSON object with caption, index and url"
                if isinstance(error, UnicodeEncodeError):
                    why = f"caption or url is no text: {error.reason}"
                raise UnavailableError(f"{path}, line {number}", why, "correct that line") from error
            yield Link(f"memorised-{index}", url, caption, True, "memorised", {"memorised": True})


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [Webster]
