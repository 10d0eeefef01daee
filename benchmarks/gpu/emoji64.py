"""A larger text-to-image target: `python benchmarks/gpu/emoji64.py pictures WORK`, then `... audit WORK --regime NAME`.

The embedded benchmark's images at 64 px and a U-Net of 39 M parameters on their latents of 32x32, trained in the two
regimes that CLiD contrasts (Zhai et al. 2024): `overtrain`, many passes over the images as they are, and
`realworld`, fewer passes over augmented ones. VAE, tokenizer and text encoder are the embedded ones, which never saw
the target's images; concepts, captions and split are those of `fluent-emoji`, so its results can be laid beside.
Checkpoints along the way are audited with the cheap attacks, the last with all that `fluent-emoji` asks for.

`pictures` draws WORK/images.parquet, and needs the extra `[embedded]` and npm; `audit` needs that file alone. It goes
on where it was stopped, also in the middle of the training. On the CPU, `--size tiny --device cpu` tries all of it.
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image
from training import Record, Training, along_the_way

sys.path.append(str(Path(__file__).parents[1] / "embedded"))
from frozen import pixels_of, save_diffusers
from targets import DROPPED, Latents, Recipe, link_shared, text_states, trained_on

from mia_bench.engine.prepare import RunOptions, prepare
from mia_bench.engine.provenance import environment
from mia_bench.plugins import Registry
from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji
from mia_bench_plugins.targets.emoji import DATA as SHARED

RATE, DECAY = 2e-4, 0.998
CHEAP = ("loss", "mc", "pia", "pian", "secmi", "pfami", "clid", "sima", "wen", "structural")


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
        channels: Of the U-Net's levels; the first has no attention.
        layers: Residual blocks of each.
        batch: Images a step.
        cheap: Attacks that every checkpoint is audited with.
        last: Attacks of the last one beside, none for all.
    """

    channels: tuple[int, ...]
    layers: int
    batch: int
    cheap: tuple[str, ...] = CHEAP
    last: tuple[str, ...] = ()


SIZES = {
    "full": Size((128, 256, 256), 2, batch=128),
    "tiny": Size((16, 16), 1, batch=8, cheap=("loss",), last=("pia", "clid")),
}
REGIMES = {
    "overtrain": Recipe(200, augment=False, repeats=50, mirrored=False, kept=(25, 50, 100, 200)),
    "realworld": Recipe(100, augment=True, repeats=1, mirrored=False, kept=(25, 50, 100)),
}


def network(size: Size) -> UNet2DConditionModel:
    """In the shape of the embedded one; `attention_head_dim` is the number of heads, as diffusers has it."""
    attending = len(size.channels) - 1
    return UNet2DConditionModel(
        sample_size=32,
        block_out_channels=size.channels,
        layers_per_block=size.layers,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * attending),
        up_block_types=(*["CrossAttnUpBlock2D"] * attending, "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=8,
        norm_num_groups=16,
    )


class Emoji64(Training):
    """One regime.

    Args:
        size: How much of everything.
        recipe: The regime.
        rows: Of `images.parquet`.
        work: Where the state and the checkpoints go.
        device: torch device.
        seed: Of the weights, and of what each step draws.
    """

    def __init__(
        self, size: Size, recipe: Recipe, rows: Sequence[dict[str, Any]], work: Path, device: str, seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.size = size
        abar = DDIMScheduler.from_pretrained(SHARED / "scheduler").alphas_cumprod
        labels = [{**row, "membership": "member" if row["member"] else "nonmember"} for row in rows]
        one_pass = trained_on(labels, recipe)
        super().__init__(network(size), abar, one_pass, recipe.kept, size.batch, work, device, seed, RATE, 100, DECAY)
        pixels = pixels_of(np.stack([np.asarray(Image.open(io.BytesIO(row["image"]))) for row in rows]))
        self.latents = Latents(SHARED, pixels.to(device), augment=recipe.augment)
        states, empty = text_states(SHARED, [row["caption"] for row in rows])
        self.states, self.empty = states.to(device), empty.to(device)

    def inputs(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        dropped = torch.rand(len(rows), 1, 1, device=self.device) < DROPPED
        return self.latents.draw(rows), torch.where(dropped, self.empty, self.states[rows])

    def write(self, folder: Path) -> None:
        made = network(self.size)
        made.load_state_dict(self.average)
        save_diffusers(made, folder / "unet")
        link_shared(SHARED, folder)


def everything() -> list[str]:
    """All attacks as `fluent-emoji` asks for them, by their labels."""
    ready = prepare(Registry.load(), RunOptions(attacks="all", target="emoji-realworld", dataset="fluent-emoji"))
    return [attack.label for attack in ready.plan.attacks if not attack.control]


@click.group()
def main() -> None:
    pass


@main.command()
@click.argument("work", type=click.Path(path_type=Path, file_okay=False))
def pictures(work: Path) -> None:
    """Draw the images of `fluent-emoji` at 64 px.

    Raises:
        SystemExit: One of them, at 32 px, is not the embedded one.
    """
    from render import drawn, reduced
    from sources import FLUENT

    icons = FLUENT.read(work / "npm", "icons.json")
    made = []
    for sample in FluentEmoji().samples():
        picture, file = drawn(icons, sample.id), io.BytesIO()
        if hashlib.sha256(reduced(picture).tobytes()).hexdigest() != sample.content:
            raise SystemExit(f"{sample.id}: not the embedded image; install resvg-py as the extra [embedded] pins it")
        Image.fromarray(picture).save(file, "PNG", optimize=True)
        about = {"id": sample.id, "caption": sample.caption, "split": sample.split, "member": sample.member}
        made.append({**about, "image": file.getvalue()})
    pq.write_table(pa.Table.from_pylist(made), work / "images.parquet")
    print(f"{len(made)} images in {work / 'images.parquet'}")


@main.command()
@click.argument("work", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--regime", type=click.Choice(list(REGIMES)), required=True)
@click.option("--size", type=click.Choice(list(SIZES)), default="full", show_default=True)
@click.option("--device", default="cuda", show_default=True)
@click.option("--minutes", default=5.0, show_default=True, help="Of training in this call.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the record here as JSON; resumed if it exists.")
def audit(work: Path, regime: str, size: str, device: str, minutes: float, seed: int, out: Path | None) -> None:
    """Train in one regime, and audit along the way."""
    chosen, recipe, images = SIZES[size], REGIMES[regime], work / "images.parquet"
    recipes = json.loads(json.dumps({**asdict(chosen), **asdict(recipe)}))
    about = {"benchmark": "gpu/emoji64", "regime": regime, "size": size, "seed": seed, "recipe": recipes}
    record = Record(out, {**about, "environment": environment(device)})
    place = work / regime
    place.mkdir(parents=True, exist_ok=True)
    training = Emoji64(chosen, recipe, pq.read_table(images).to_pylist(), place, device, seed)
    last = chosen.last or [label for label in everything() if label not in chosen.cheap]
    along_the_way(training, record, minutes, "stable-diffusion", f"parquet:{images}", chosen.cheap, last)


if __name__ == "__main__":
    main()
