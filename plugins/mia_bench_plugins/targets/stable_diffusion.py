"""Stable Diffusion 1.x and 2.x: VAE, one CLIP text encoder, a U-Net conditioned by cross-attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mia_bench import Capability, Target, TargetMeta, hookimpl
from mia_bench.diffusion.pipeline import PipelineTarget, ids

if TYPE_CHECKING:
    import torch

EVERYTHING = frozenset({Capability.DENOISE, Capability.GENERATE, Capability.CAPTION, Capability.GRADIENT})


class StableDiffusion(PipelineTarget):
    """Predicts noise, velocity or the image, as its scheduler says."""

    meta = TargetMeta(
        name="stable-diffusion",
        summary="Stable Diffusion 1.x and 2.x: one text encoder, cross-attention",
        kind="latent",
        capabilities=EVERYTHING,
        pipelines=frozenset({"StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"}),
        citation="Rombach et al., CVPR 2022, arXiv:2112.10752",
    )
    parts = {
        "scheduler": (),
        "text_encoder": ("CLIPTextModel",),
        "tokenizer": ("CLIPTokenizer",),
        "unet": ("UNet2DConditionModel",),
        "vae": ("AutoencoderKL",),
    }

    def predict(self, x: torch.Tensor, t: torch.Tensor, **states: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.unet(x.to(self.unet.dtype), t, **states, return_dict=False)[0]
        return output

    def tokens(self, texts: Sequence[str]) -> torch.Tensor:
        return ids(self.tokenizer, texts)

    def text_states(self, tokens: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.text_encoder(tokens)[0]
        return states


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [StableDiffusion]
