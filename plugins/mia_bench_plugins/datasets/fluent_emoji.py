"""The embedded dataset: Fluent Emoji icons with emojibase captions, 32 px, shipped as one PNG."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from mia_bench import Dataset, DatasetMeta, Sample, hookimpl
from mia_bench.errors import UnavailableError

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDER = Path(__file__).parents[1] / "data" / "fluent_emoji"
SIDE, COLUMNS = 32, 34
MEMBERSHIP = {"member": True, "heldout": False, "calibration": False}


class FluentEmoji(Dataset):
    """1,090 icons, no two near-duplicates, one per concept."""

    meta = DatasetMeta(
        name="fluent-emoji",
        summary="491 + 491 emoji icons with captions, 108 further non-members; embedded",
        targets=("emoji-default", "emoji-overtrain"),
        construction="concepts split at random within nine categories before training, after near-duplicates were "
        "dropped: 45 % members, 45 % non-members, 10 % calibration non-members",
        biases="icons on white: results say how attacks behave on this model, not on Stable Diffusion",
        licence="images MIT (Fluent Emoji), captions MIT (emojibase)",
        citation="Microsoft Fluent Emoji; emojibase-data 17.0.0",
        revision="split 20240607",
    )

    def samples(self) -> Sequence[Sample]:
        try:
            with (FOLDER / "split.csv").open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        except OSError as error:
            raise UnavailableError("dataset fluent-emoji", str(error), "reinstall mia-bench") from error
        return [
            Sample(
                id=row["id"],
                image=partial(_icon, index),
                content=row["sha256_rgb32"],
                caption=row["caption"],
                member=MEMBERSHIP[row["split"]],
                split="calibration" if row["split"] == "calibration" else "audit",
                group=row["id"],
                labels={"category": row["emoji_group"]},
            )
            for index, row in enumerate(rows)
        ]


def _icon(index: int) -> Image:
    left, top = index % COLUMNS * SIDE, index // COLUMNS * SIDE
    return _atlas().crop((left, top, left + SIDE, top + SIDE))


@cache
def _atlas() -> Image:
    """All icons, row by row in the order of `split.csv`."""
    from PIL import Image as pil

    with pil.open(FOLDER / "images_atlas.png") as file:
        return file.convert("RGB")


@hookimpl
def mia_bench_datasets() -> list[type[Dataset]]:
    return [FluentEmoji]
