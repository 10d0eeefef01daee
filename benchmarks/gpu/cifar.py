"""A published protocol on real images: `python benchmarks/gpu/cifar.py IMAGES.parquet --out FILE.json`.

The DDPM of Ho et al. 2020 for CIFAR-10 (35.7 M parameters, linear betas, T = 1000) is trained on a random half of some
images, as SecMI and PIA train theirs, and audited along the way: AUC and TPR at 1 % FPR of every attack that needs no
caption, against passes over the members. What counts is the trajectory, and the order of the attacks beside the papers'
(`mia-bench report --published`); the images are fewer and the training is shorter, so the numbers are not theirs.

IMAGES has a column `jpeg` of 32 px pictures and a unique column `id`. A part of both halves is the calibration set.
The same command goes on where it was stopped, also in the middle of the training, to the same weights: training takes
`--minutes` of each call, then what it has kept is audited. On the CPU, `--size tiny --device cpu` tries all of it.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image
from training import Record, Training, along_the_way

from mia_bench.engine.provenance import environment

RATE = 2e-4  # Ho et al., App. B, as the average's decay; the warm-up is shorter
CALIBRATION = 0.2  # of each half


@dataclass(frozen=True)
class Size:
    """How much of everything.

    Attributes:
        channels: Of the U-Net's levels.
        layers: Residual blocks of each.
        members: Images trained on; as many are not.
        batch: Images a step.
        kept: Passes over the members after which a checkpoint is kept.
        attacks: That every checkpoint is audited with.
        last: That only the last one is audited with, because they ask hundreds of queries.
    """

    channels: tuple[int, ...]
    layers: int
    members: int
    batch: int
    kept: tuple[int, ...]
    attacks: str
    last: str = ""


EVERY = "loss,mc,pia,pian,secmi,secmi-nns,pfami,sima,structural,rediffuse"
SIZES = {
    "full": Size(
        (128, 256, 256, 256),
        2,
        members=2500,
        batch=128,
        kept=(25, 50, 100, 200, 400),
        attacks=EVERY,
        last="gsa,iip,pfami-nns,sweep[pixels]",
    ),
    "tiny": Size((8, 16), 1, members=20, batch=8, kept=(1, 2, 4), attacks="loss,pia,secmi"),
}


def network(size: Size) -> UNet2DModel:
    """Attention at half the side, as Ho et al. have it."""
    levels = len(size.channels)
    return UNet2DModel(
        sample_size=32,
        block_out_channels=size.channels,
        layers_per_block=size.layers,
        down_block_types=tuple("AttnDownBlock2D" if i == 1 else "DownBlock2D" for i in range(levels)),
        up_block_types=tuple("AttnUpBlock2D" if i == levels - 2 else "UpBlock2D" for i in range(levels)),
        norm_num_groups=min(32, size.channels[0]),
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
        dropout=0.1,
    )


def split(images: Path, size: Size, seed: int, out: Path) -> torch.Tensor:
    """Draw both halves, and write them as a dataset for `parquet:`.

    Returns:
        The members that the network is trained on, calibration ones too: uint8 `(n, 3, 32, 32)`.
    """
    found = pq.read_table(images, columns=["id", "jpeg"])
    drawn = np.random.default_rng(seed).permutation(len(found))[: 2 * size.members]
    rows = found.take(np.sort(drawn)).to_pylist()
    order = {int(index): place for place, index in enumerate(np.sort(drawn))}
    made = []
    for place, index in enumerate(drawn):
        row, within = rows[order[int(index)]], place % size.members
        kind = "calibration" if within < CALIBRATION * size.members else "audit"
        made.append({"id": row["id"], "image": row["jpeg"], "member": place < size.members, "split": kind})
    pq.write_table(pa.Table.from_pylist(made), out)
    pixels = [np.asarray(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in made if row["member"]]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()


class Cifar(Training):
    """The training of Ho et al. 2020.

    Args:
        size: How much of everything.
        pixels: Members, uint8 `(n, 3, 32, 32)`.
        work: Where the state and the checkpoints go.
        device: torch device.
        seed: Of the weights, and of what each step draws.
    """

    def __init__(self, size: Size, pixels: torch.Tensor, work: Path, device: str, seed: int) -> None:
        torch.manual_seed(seed)
        self.size, self.pixels, self.scheduler = size, pixels.to(device), DDPMScheduler(beta_schedule="linear")
        abar = self.scheduler.alphas_cumprod
        super().__init__(network(size), abar, range(len(pixels)), size.kept, size.batch, work, device, seed, RATE)

    def inputs(self, rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        clean = self.pixels[rows].float() / 127.5 - 1
        return (torch.where(torch.rand(len(clean), 1, 1, 1, device=self.device) < 0.5, clean.flip(-1), clean),)

    def write(self, folder: Path) -> None:
        made = network(self.size)
        made.load_state_dict(self.average)
        DDPMPipeline(unet=made, scheduler=self.scheduler).save_pretrained(folder)


@click.command()
@click.argument("images", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--size", type=click.Choice(list(SIZES)), default="full", show_default=True)
@click.option("--device", default="cuda", show_default=True)
@click.option("--minutes", default=6.0, show_default=True, help="Of training in this call.")
@click.option("--seed", default=0, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/cifar"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Write the record here as JSON; resumed if it exists.")
def main(images: Path, size: str, device: str, minutes: float, seed: int, work: Path, out: Path | None) -> None:
    chosen = SIZES[size]
    about = {"benchmark": "gpu/cifar", "size": size, "seed": seed, "recipe": json.loads(json.dumps(vars(chosen)))}
    record = Record(out, {**about, "environment": environment(device)})
    work.mkdir(parents=True, exist_ok=True)
    training = Cifar(chosen, split(images, chosen, seed, work / "images.parquet"), work, device, seed)
    dataset = f"parquet:{work / 'images.parquet'}"
    along_the_way(training, record, minutes, "ddpm", dataset, [chosen.attacks], filter(None, [chosen.last]))


if __name__ == "__main__":
    main()
