"""The embedded dataset: Fluent Emoji icons with emojibase captions, 32 px, shipped as one PNG."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mia_bench import Dataset, DatasetMeta, Sample, hookimpl
from mia_bench.dataset import Split
from mia_bench.errors import UnavailableError

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, COLUMNS = 32, 34
SPLITS: dict[str, Split] = {"audit": "audit", "calibration": "calibration", "memorised": "memorised"}


class FluentEmoji(Dataset):
    """1,084 icons, no two near-duplicates, one per concept."""

    meta = DatasetMeta(
        name="fluent-emoji",
        summary="400 + 400 emoji icons with captions, 130 + 130 to calibrate on, 24 memorised; embedded",
        targets=("emoji-realworld", "emoji-overtrain"),
        preset="quick",
        construction="near-duplicates dropped, then one shuffle cut into pieces, before any training: audit and "
        "calibration sets of members and non-members, and images that some targets saw 50 times as often",
        biases="icons on white, short noun lists: results say how attacks behave on these models, not on Stable "
        "Diffusion",
        licence="images MIT (Fluent Emoji), captions MIT (emojibase)",
        citation="Microsoft Fluent Emoji; emojibase-data 17.0.0",
        revision="2",
    )
    folder: ClassVar[Path] = Path(__file__).parents[1] / "data" / "fluent_emoji"
    members: ClassVar[str] = "member"

    def samples(self) -> Sequence[Sample]:
        try:
            with (self.folder / "split.csv").open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        except OSError as error:
            raise UnavailableError(f"dataset {self.meta.name}", str(error), "reinstall mia-bench") from error
        return [
            Sample(
                id=row["id"],
                image=partial(_icon, self.folder / "images.png", index),
                content=row["sha256"],
                caption=row["caption"],
                member=row["split"] == "memorised" or row["membership"] == self.members,
                split=SPLITS[row["split"]],
                group=row["id"],
                labels={"category": row["category"]},
            )
            for index, row in enumerate(rows)
        ]


class FluentEmojiMirror(FluentEmoji):
    """The same images for the target that was trained on the non-members."""

    meta = FluentEmoji.meta.model_copy(
        update={
            "name": "fluent-emoji-mirror",
            "summary": "fluent-emoji with members and non-members swapped, as emoji-mirror was trained; embedded",
            "targets": ("emoji-mirror",),
        }
    )
    members = "nonmember"


def _icon(atlas: Path, index: int) -> Image:
    left, top = index % COLUMNS * SIDE, index // COLUMNS * SIDE
    return _atlas(atlas).crop((left, top, left + SIDE, top + SIDE))


@cache
def _atlas(path: Path) -> Image:
    """All icons, row by row in the order of `split.csv`."""
    from PIL import Image as pil

    with pil.open(path) as file:
        return file.convert("RGB")


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [FluentEmoji, FluentEmojiMirror]
