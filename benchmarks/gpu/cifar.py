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
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image
from torch.nn import functional

sys.path.append(str(Path(__file__).parents[1] / "speed"))
from timing import Record

from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.provenance import environment
from mia_bench.engine.run import run
from mia_bench.plugins import Registry
from mia_bench.report.text import table

RATE, WARM_UP, DECAY = 2e-4, 500, 0.9999  # Ho et al., App. B, with a shorter warm-up
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


class Training:
    """One training that can be stopped after any step; it goes on to the same weights.

    Args:
        size: How much of everything.
        pixels: Members, uint8 `(n, 3, 32, 32)`.
        work: Where the state and the checkpoints go.
        device: torch device; bfloat16 on a GPU.
        seed: Of weights, order, flips, timesteps, noise and dropout: each step's depend on it and the step alone.
    """

    def __init__(self, size: Size, pixels: torch.Tensor, work: Path, device: str, seed: int) -> None:
        torch.manual_seed(seed)
        self.size, self.pixels, self.work, self.device, self.seed = size, pixels.to(device), work, device, seed
        self.net = network(size).to(device, memory_format=torch.channels_last).train()
        self.average = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=RATE)
        self.scheduler = DDPMScheduler(beta_schedule="linear")
        self.abar = self.scheduler.alphas_cumprod.to(device)
        self.step = 0
        if (work / "state.pt").exists():
            state = torch.load(work / "state.pt", map_location=device)
            self.net.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.step = state["average"], state["step"]

    @property
    def ends(self) -> dict[int, int]:
        """Passes by the step that ends them."""
        return {passes * len(self.pixels) // self.size.batch: passes for passes in self.size.kept}

    @property
    def done(self) -> bool:
        return self.step >= max(self.ends)

    def train(self, seconds: float) -> float:
        """Train for so long, or to the end.

        Returns:
            Images a second.
        """
        began, first = time.monotonic(), self.step
        while not self.done and time.monotonic() - began < seconds:
            loss = self.advance()
            if passes := self.ends.get(self.step):
                self.keep(passes)
                self.save()  # what kills the command costs no more than this
                print(f"{passes} passes, {self.step} steps, last loss {loss.item():.4f}", flush=True)
        self.save()
        return (self.step - first) * self.size.batch / max(1e-9, time.monotonic() - began)

    def advance(self) -> torch.Tensor:
        """One step of Adam on the error of the noise."""
        torch.manual_seed(self.seed * 1_000_003 + self.step)
        clean = self.pixels[self.rows()].float() / 127.5 - 1
        clean = torch.where(torch.rand(len(clean), 1, 1, 1, device=self.device) < 0.5, clean.flip(-1), clean)
        t = torch.randint(len(self.abar), (len(clean),), device=self.device)
        noise, abar = torch.randn_like(clean), self.abar[t, None, None, None]
        noised = (abar.sqrt() * clean + (1 - abar).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        half = torch.autocast("cuda", torch.bfloat16) if self.device.startswith("cuda") else nullcontext()
        with half:
            predicted = self.net(noised, t).sample
        loss = functional.mse_loss(predicted.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * min(1.0, self.step / WARM_UP)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(DECAY, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_([*self.average.values()], [*self.net.state_dict().values()], 1 - decay)
        return loss.detach()

    def rows(self) -> torch.Tensor:
        """Members of this step: passes that are each shuffled, one running into the next."""
        count, start = len(self.pixels), self.step * self.size.batch
        wanted = torch.arange(start, start + self.size.batch)
        orders = {
            p: torch.randperm(count, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + int(p)))
            for p in (wanted // count).unique().tolist()
        }
        return torch.stack([orders[int(i) // count][int(i) % count] for i in wanted]).to(self.device)

    def keep(self, passes: int) -> None:
        """Write the average as a pipeline."""
        made = network(self.size)
        made.load_state_dict(self.average)
        DDPMPipeline(unet=made, scheduler=self.scheduler).save_pretrained(self.folder(passes))

    def folder(self, passes: int) -> Path:
        return self.work / "checkpoints" / str(passes)

    def save(self) -> None:
        state = {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "average": self.average, "step": self.step}, self.work / "state.part")
        (self.work / "state.part").replace(self.work / "state.pt")


def audit(pipeline: Path, dataset: Path, attacks: str, out: Path, device: str) -> dict[str, Any]:
    """A run on one checkpoint: AUC and TPR at 1 % FPR with intervals, by attack."""
    began = time.monotonic()
    options = RunOptions(
        attacks=attacks, target=f"ddpm:{pipeline}", dataset=f"parquet:{dataset}", out=out, device=device
    )
    result = run(Registry.load(), options)

    def point(metric: Any) -> dict[str, float | None]:
        return {"value": metric.value, "low": metric.low, "high": metric.high}

    rows = {row.label: row.evaluation for row in result.rows if row.evaluation}
    figures = {label: {"auc": point(e.auc), "tpr_at_1": point(e.tpr_at_1)} for label, e in rows.items()}
    return {"attacks": figures, "seconds": time.monotonic() - began}


def text(record: Record) -> str:
    """AUC by attack and passes, the best at the last checkpoint first."""
    found = {int(name.split()[1]): step["attacks"] for name, step in record.steps.items() if name.startswith("audit ")}
    if not found:
        return "no checkpoint has been audited"
    passes = sorted(found)

    def auc(label: str, after: int) -> float:
        return float(found[after].get(label, {}).get("auc", {}).get("value") or 0.0)

    labels = sorted({label for of in found.values() for label in of}, key=lambda label: -auc(label, passes[-1]))
    rows = [[label, *(f"{auc(label, p):.3f}" if auc(label, p) else "–" for p in passes)] for label in labels]
    return table(rows, ["AUC after so many passes", *map(str, passes)])


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
    training = Training(chosen, split(images, chosen, seed, work / "images.parquet"), work, device, seed)
    parameters = sum(p.numel() for p in training.net.parameters())
    if not training.done:
        pace = training.train(60 * minutes)
        record.write(parameters=parameters, steps_trained=training.step, images_per_second=pace)
    for passes in chosen.kept:
        pipeline = training.folder(passes)
        if pipeline.exists():
            last = chosen.last if passes == max(chosen.kept) else ""
            attacks = ",".join(filter(None, (chosen.attacks, last)))
            record.once(
                f"audit {passes}",
                lambda p=pipeline, a=attacks: audit(p, work / "images.parquet", a, work / "runs" / p.name, device),
            )
    print(text(record))
    if not training.done:
        print(f"{training.step} of {max(training.ends)} steps: the same command goes on")


if __name__ == "__main__":
    main()
