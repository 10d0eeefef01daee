"""The stages of the build, each a function of what lies in the work folder and the ones before.

python stages.py WORK data|frozen-image|frozen-text|train NAME|package
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

import blind
import frozen
import numpy as np
import split
import targets
import torch
from concepts import Concept, concepts
from numpy.typing import NDArray
from PIL import Image
from render import fluent, public
from sources import EMOJIBASE

FILTER_SEED, FIRST_DRAW, TRAINING_SEED = 20261122, 1, 1
COLUMNS, SIDE = 34, 32
DATA = Path(__file__).parents[2] / "plugins" / "mia_bench_plugins" / "data"


def data(work: Path, draw: int = FIRST_DRAW) -> None:
    """Images, captions and split: `work/fluent_emoji/{images.png, split.csv}`, and `blind.json` beside."""
    found = concepts(work / "npm")
    pixels = fluent(found, work)
    kept = split.distinct(found, pixels, FILTER_SEED)
    chosen, images = [found[index] for index in kept], pixels[list(kept)]
    tried = []
    while True:
        drawn = split.draw(len(chosen), draw)
        audit = [i for i, (part, _) in enumerate(drawn) if part == "audit"]
        member = np.array([drawn[i][1] for i in audit])
        seen = {"seed": draw, **blind.look([chosen[i] for i in audit], images[audit], member)}
        tried.append(seen)
        if blind.passes(seen):
            break
        draw += 1
    out = work / "fluent_emoji"
    out.mkdir(parents=True, exist_ok=True)
    used = [i for i, (part, _) in enumerate(drawn) if part]
    write_split(out, [(chosen[i], drawn[i], kept[found.index(chosen[i])]) for i in used], images[used])
    report = {"filter_seed": FILTER_SEED, "concepts": len(found), "distinct": len(kept), "draws": tried}
    (work / "blind.json").write_text(json.dumps(report, indent=2) + "\n")


def write_split(
    out: Path, rows: list[tuple[Concept, tuple[str, bool | None], list[str]]], images: NDArray[np.uint8]
) -> None:
    """One CSV row an image, and one PNG of all, 34 a row, in the same order."""
    with (out / "split.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "split", "membership", "caption", "category", "hexcode", "sha256", "stands_for"])
        for (concept, (part, member), others), image in zip(rows, images, strict=True):
            membership = "member" if member else "nonmember"
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            where = (concept.category, concept.hexcode)
            writer.writerow([concept.id, part, membership, concept.caption, *where, digest, " ".join(others)])
    height = -(-len(images) // COLUMNS)
    atlas = np.full((height * COLUMNS, SIDE, SIDE, 3), 255, dtype=np.uint8)
    atlas[: len(images)] = images
    sheet = atlas.reshape(height, COLUMNS, SIDE, SIDE, 3).swapaxes(1, 2).reshape(height * SIDE, COLUMNS * SIDE, 3)
    Image.fromarray(sheet).save(out / "images.png", optimize=True)


def read_split(folder: Path) -> tuple[list[dict[str, str]], NDArray[np.uint8]]:
    with (folder / "split.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    sheet = np.asarray(Image.open(folder / "images.png").convert("RGB"))
    height = sheet.shape[0] // SIDE
    atlas = sheet.reshape(height, SIDE, COLUMNS, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    return rows, atlas[: len(rows)]


def frozen_image(work: Path) -> None:
    """The VAE."""
    frozen.train_vae(public(concepts(work / "npm"), work), work / "emoji")


def frozen_text(work: Path) -> None:
    """Tokenizer, text encoder and image tower, perceptual encoder, scheduler."""
    found = concepts(work / "npm")
    texts = [t for e in EMOJIBASE.read(work / "npm", "en/data.json") for t in (e["label"], *e.get("tags", ()))]
    styles, out = public(found, work), work / "emoji"
    tokenizer = frozen.train_tokenizer(texts, out)
    frozen.train_clip(styles, [concept.caption for concept in found], tokenizer, out)
    frozen.train_perceptual(styles, [concept.subgroup for concept in found], out)
    targets.save_scheduler(out)


def train(work: Path, name: str) -> None:
    """One target's U-Net and its checkpoints."""
    rows, images = read_split(work / "fluent_emoji")
    recipe, pixels = targets.RECIPES[name], frozen.pixels_of(images)
    targets.train(name, recipe, rows, pixels, work / "emoji", work / "checkpoints", TRAINING_SEED)


def package(work: Path) -> None:
    """Put what was built where the package ships it."""
    for part in ("fluent_emoji", "emoji"):
        shutil.rmtree(DATA / part, ignore_errors=True)
        shutil.copytree(work / part, DATA / part)


if __name__ == "__main__":
    torch.set_num_threads(1)  # two trainings run side by side; and one thread's sums are the same on any machine size
    torch.use_deterministic_algorithms(True)
    place, stage, *rest = sys.argv[1:]
    {"data": data, "frozen-image": frozen_image, "frozen-text": frozen_text, "train": train, "package": package}[stage](
        Path(place), *(int(a) if a.isdigit() else a for a in rest)
    )
