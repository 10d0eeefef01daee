"""LAION-mi: members and non-members of Stable Diffusion v1-4, as urls (Dubiński et al., WACV 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mia_bench import Dataset, DatasetMeta, hookimpl
from mia_bench.errors import UnavailableError, brief
from mia_bench.fetch.links import Link, UrlList
from mia_bench_plugins.datasets.hub import snapshot

REPOSITORY = "antoniaaa/laion_mi"
PATTERNS = ["*.parquet"]
CLASSES = {"members": True, "nonmembers": False}  # how the files' names begin


class LaionMi(UrlList):
    """13,396 members and 26,874 non-members; the images have to be fetched, and many are gone."""

    meta = DatasetMeta(
        name="laion-mi",
        summary="members and non-members of Stable Diffusion v1-4, as urls whose images `mia-bench fetch` gets",
        targets=("sd-v1-4", "sd-v1-5"),
        construction="members from LAION-Aesthetics v2 5+, on which Stable Diffusion v1-4 was trained; non-members "
        "from LAION-2B-MultiTranslated, de-duplicated and filtered to resemble them",
        biases="captions of non-members are machine translations, and tell: compare blind@caption. Links die by host, "
        "so what survives is a selection, and not the same in both classes",
        licence="MIT (the lists); the images belong to their makers",
        citation="Dubiński et al., Towards More Realistic Membership Inference Attacks on Large Diffusion Models, "
        "WACV 2024, arXiv:2306.12983",
        revision="194fe331b99016a85381d9d9d20a65b3edbd76c9",
        argument="[PATH][,balanced=SEED][,list=HASH]",
    )

    def urls(self) -> Sequence[Link]:
        return [link for kind in CLASSES for link in _read(self._file(kind), kind)]

    def download(self) -> None:
        """From the hub, unless it is in the hub's cache or a path was given."""
        if not self.path:
            snapshot(self.meta.name, REPOSITORY, self.meta.revision, PATTERNS)

    def _file(self, kind: str) -> Path:
        folder = Path(self.path).expanduser() if self.path else self._cached()
        if self.path and not folder.is_dir():
            raise UnavailableError(f"dataset {self.spec}", f"no such folder: {folder}", "check the path")
        found = sorted(path for path in folder.rglob("*.parquet") if path.name.startswith(kind))
        if len(found) != 1:
            why = f"{len(found) or 'no'} files {kind}*.parquet in {folder}"
            fix = "put members*.parquet and nonmembers*.parquet there" if self.path else f"run `{self.command}`"
            raise UnavailableError(f"dataset {self.spec}", why, fix)
        return found[0]

    def _cached(self) -> Path:
        """The folder of the pinned revision in the hub's cache."""
        from huggingface_hub import constants, snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            return Path(
                snapshot_download(
                    REPOSITORY,
                    repo_type="dataset",
                    revision=self.meta.revision,
                    cache_dir=constants.HF_HUB_CACHE,
                    allow_patterns=PATTERNS,
                    local_files_only=True,
                )
            )
        except LocalEntryNotFoundError as error:
            why = f"its list of urls is not in the hub's cache, {constants.HF_HUB_CACHE}"
            fix = self.elsewhere if constants.HF_HUB_OFFLINE else f"run `{self.command}`"
            raise UnavailableError(f"dataset {self.spec}", why, fix) from error


def _read(path: Path, kind: str) -> list[Link]:
    """The rows of one file; an id is the class and the row's number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_table(path, columns=["url", "caption"]).to_pydict()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        fix = "it needs the string columns url and caption; get it again"
        raise UnavailableError(f"list of urls {path}", brief(error), fix) from error
    rows = zip(columns["url"], columns["caption"], strict=True)
    return [
        Link(f"{kind}-{row}", str(url or ""), caption or None, CLASSES[kind]) for row, (url, caption) in enumerate(rows)
    ]


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [LaionMi]
