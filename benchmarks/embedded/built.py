"""Plugin: the dataset as it lies in a work folder, `built:WORK/fluent_emoji`, before it is packaged."""

from __future__ import annotations

from pathlib import Path

from mia_bench import Dataset, DatasetMeta, hookimpl
from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji


class Built(FluentEmoji):
    """A split and its images from any folder."""

    meta = DatasetMeta(name="built", summary="a freshly built fluent-emoji", argument="FOLDER", revision="built")

    def __init__(self, argument: str = "") -> None:
        super().__init__(argument)
        self.folder = Path(argument)  # type: ignore[misc]


class BuiltMirror(Built):
    """The same for the mirrored target."""

    meta = Built.meta.model_copy(update={"name": "built-mirror"})
    members = "nonmember"


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [Built, BuiltMirror]
