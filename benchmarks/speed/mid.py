"""A Stable-Diffusion pipeline of a middle size with random weights: timing needs no training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

TOKENIZER = Path(__file__).parents[2] / "tests" / "parity" / "fixtures" / "models" / "tiny_sd" / "tokenizer"
# 25 M parameters on 4x16x16 latents of 64 px images; `tiny` is for tests of the benchmark.
SIZES: dict[str, dict[str, Any]] = {
    "mid": {"unet": (128, 192, 256), "vae": (32, 64, 64), "text": 256, "layers": 4, "norm": 32, "latent": 16},
    "tiny": {"unet": (8, 16), "vae": (8, 8), "text": 32, "layers": 1, "norm": 4, "latent": 8},
}


def make(folder: Path, size: str = "mid") -> int:
    """Save a pipeline as diffusers does.

    Args:
        folder: Where to.
        size: `mid` or `tiny`.

    Returns:
        Parameters of the U-Net.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    shape = SIZES[size]
    levels, stages = len(shape["unet"]), len(shape["vae"])
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    unet = UNet2DConditionModel(
        sample_size=shape["latent"],
        block_out_channels=shape["unet"],
        norm_num_groups=shape["norm"],
        layers_per_block=2,
        cross_attention_dim=shape["text"],
        attention_head_dim=8 if size == "mid" else 4,
        down_block_types=("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (levels - 1),
    )
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape["text"],
        intermediate_size=4 * shape["text"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    vae = AutoencoderKL(
        block_out_channels=shape["vae"],
        norm_num_groups=shape["norm"] if size != "mid" else 16,
        latent_channels=4,
        sample_size=shape["latent"] * 2 ** (stages - 1),
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return sum(weight.numel() for weight in unet.parameters())
