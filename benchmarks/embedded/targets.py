"""Training of the three U-Nets; everything else is shared and frozen."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from frozen import Average, save_diffusers, shifted
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

BATCH, RATE, WARM_UP, DROPPED = 32, 1e-3, 100, 0.1
SHARED = ("scheduler", "text_encoder", "tokenizer", "vae")


@dataclass(frozen=True)
class Recipe:
    """How a target is trained.

    Attributes:
        passes: Passes over the members.
        augment: Flips, shifts by up to 2 px, small colour changes.
        repeats: How often a pass shows each memorised image.
        mirrored: Train on the non-members instead of the members.
        kept: Passes after which a checkpoint is kept for the trajectory.
    """

    passes: int
    augment: bool
    repeats: int
    mirrored: bool
    kept: tuple[int, ...]


OVERTRAIN = Recipe(130, augment=False, repeats=50, mirrored=False, kept=(5, 10, 20, 30, 45, 60, 80, 100, 130))
REALWORLD = Recipe(250, augment=True, repeats=1, mirrored=False, kept=(25, 50, 100, 150, 200, 250))
RECIPES = {
    "realworld": REALWORLD,
    "overtrain": OVERTRAIN,
    "mirror": Recipe(130, augment=False, repeats=50, mirrored=True, kept=()),
}


def trained_on(rows: Sequence[dict[str, str]], recipe: Recipe) -> list[int]:
    """Indices of one pass: members, or non-members, of both sets once, the memorised as often as the recipe says."""
    own = "nonmember" if recipe.mirrored else "member"
    ordinary = [i for i, row in enumerate(rows) if row["membership"] == own and row["split"] != "memorised"]
    memorised = [i for i, row in enumerate(rows) if row["split"] == "memorised"]
    return ordinary + memorised * recipe.repeats


def save_scheduler(out: Path) -> None:
    """Stable Diffusion's schedule."""
    DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        num_train_timesteps=1000,
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    ).save_pretrained(out / "scheduler")


def make_unet() -> UNet2DConditionModel:
    """2.7 M parameters; `attention_head_dim` is the number of heads, as diffusers has it."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def train(
    name: str, recipe: Recipe, rows: Sequence[dict[str, str]], pixels: Tensor, shared: Path, out: Path, seed: int
) -> None:
    """Train one U-Net and write it, and its checkpoints, as pipelines.

    Args:
        name: Of the target; its U-Net goes to `shared/NAME/unet`.
        recipe: How.
        rows: The split's rows, in the order of `pixels`.
        pixels: (N, 3, 32, 32) float32 in [-1, 1].
        shared: Folder of the frozen parts.
        out: Where checkpoints go, as `out/NAME/PASSES/`, each a pipeline folder.
        seed: Of weights, order, timesteps and noise.
    """
    torch.manual_seed(seed)
    unet = make_unet().to(memory_format=torch.channels_last)
    schedule = DDIMScheduler.from_pretrained(shared / "scheduler").alphas_cumprod
    states, empty = text_states(shared, [row["caption"] for row in rows])
    latents = Latents(shared, pixels, augment=recipe.augment)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    average = Average(unet, 0.998)
    one_pass = trained_on(rows, recipe)
    ends = {passes * len(one_pass) // BATCH: passes for passes in (*recipe.kept, recipe.passes)}
    for step, which in enumerate(_batches(one_pass, max(ends)), 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, step / WARM_UP)
        clean = latents.draw(which)
        t = torch.randint(len(schedule), (BATCH,))
        noise = torch.randn_like(clean)
        alpha = schedule[t, None, None, None]
        given = torch.where(torch.rand(BATCH, 1, 1) < DROPPED, empty, states[which])
        noised = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        loss = functional.mse_loss(unet(noised.contiguous(memory_format=torch.channels_last), t, given).sample, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        if step in ends:
            save_unet(average, out / name / str(ends[step]))
            link_shared(shared, out / name / str(ends[step]))
            print(f"{name}: {ends[step]} passes, {step} steps, last loss {loss.item():.4f}", flush=True)
    save_unet(average, shared / name)


def _batches(one_pass: list[int], steps: int) -> Iterator[Tensor]:
    """`steps` batches from passes that are each shuffled, one running into the next."""
    waiting = torch.empty(0, dtype=torch.long)
    indices = torch.tensor(one_pass)
    for _ in range(steps):
        while len(waiting) < BATCH:
            waiting = torch.cat([waiting, indices[torch.randperm(len(indices))]])
        yield waiting[:BATCH]
        waiting = waiting[BATCH:]


class Latents:
    """Draws latents from the VAE's posterior: of the images as they are (encoded once), or of augmented ones."""

    @torch.no_grad()
    def __init__(self, shared: Path, pixels: Tensor, *, augment: bool) -> None:
        self.vae = AutoencoderKL.from_pretrained(shared / "vae").float().eval().to(pixels.device)
        self.pixels, self.augment = pixels, augment
        if not augment:
            parts = [self.vae.encode(part).latent_dist for part in pixels.split(32)]
            self.mean, self.std = torch.cat([p.mean for p in parts]), torch.cat([p.std for p in parts])

    @torch.no_grad()
    def draw(self, which: Tensor) -> Tensor:
        if self.augment:
            posterior = self.vae.encode(augmented(self.pixels[which])).latent_dist
            mean, std = posterior.mean, posterior.std
        else:
            mean, std = self.mean[which], self.std[which]
        return mean + std * torch.randn_like(mean)


def augmented(pixels: Tensor) -> Tensor:
    """Flips, shifts by up to 2 px, gain and offset of each channel by up to a tenth."""
    gain, offset = (0.1 * (2 * torch.rand(len(pixels), 3, 1, 1, device=pixels.device) - 1) for _ in range(2))
    return (shifted(pixels) * (1 + gain) + offset).clamp(-1, 1)


@torch.no_grad()
def text_states(shared: Path, captions: list[str]) -> tuple[Tensor, Tensor]:
    """(N, 24, 64) states of the captions, and (1, 24, 64) of the empty one."""
    tokenizer = CLIPTokenizer.from_pretrained(shared / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(shared / "text_encoder").float().eval()
    tokens = tokenizer([*captions, ""], padding="max_length", truncation=True, return_tensors="pt").input_ids
    states = torch.cat([encoder(part)[0] for part in tokens.split(64)])
    return states[:-1], states[-1:]


def save_unet(average: Average, folder: Path) -> None:
    unet = make_unet()
    unet.load_state_dict(average.weights)
    save_diffusers(unet, folder / "unet")


def link_shared(shared: Path, pipeline: Path) -> None:
    """Make a folder a whole pipeline: what it lacks is linked, with the U-Net of its name if it has none."""
    pipeline.mkdir(parents=True, exist_ok=True)
    if not (pipeline / "unet").exists():
        (pipeline / "unet").symlink_to(shared / pipeline.name / "unet", target_is_directory=True)
    for part in SHARED:
        link = pipeline / part
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(shared / part, pipeline), target_is_directory=True)
    write_index(pipeline)


def write_index(pipeline: Path) -> None:
    import diffusers

    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (pipeline / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
