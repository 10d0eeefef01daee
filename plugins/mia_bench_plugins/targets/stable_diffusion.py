"""Stable-Diffusion-shaped pipelines: VAE, one CLIP text encoder, a U-Net conditioned by cross-attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench import Capability, Target, TargetMeta, hookimpl
from mia_bench.diffusion.folder import component, hash_files, schedule_of, square

if TYPE_CHECKING:
    import torch


class StableDiffusion(Target):
    """A pipeline folder in diffusers' layout, weights as safetensors."""

    meta = TargetMeta(
        name="stable-diffusion",
        summary="Stable-Diffusion-shaped pipeline from a diffusers folder",
        kind="latent",
        capabilities=frozenset({Capability.DENOISE, Capability.GENERATE, Capability.CAPTION, Capability.GRADIENT}),
        pipelines=frozenset({"StableDiffusionPipeline"}),
        citation="Rombach et al., CVPR 2022, arXiv:2112.10752",
    )

    parts = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")

    def folder(self, part: str) -> Path:
        """Where a part of the pipeline lies."""
        return Path(self.argument) / part

    def weights(self) -> Mapping[str, str]:
        return {f"{p}/{name}": h for p in self.parts for name, h in hash_files(self.folder(p)).items()}

    def load(self) -> None:
        import torch
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer

        place = {"device": torch.device(self.device), "dtype": getattr(torch, self.dtype)}
        self.schedule = schedule_of(self.folder("scheduler"))
        self.unet: Any = component(UNet2DConditionModel, self.folder("unet")).to(**place)
        self.vae: Any = component(AutoencoderKL, self.folder("vae")).to(**place)
        self.text_encoder: Any = component(CLIPTextModel, self.folder("text_encoder")).to(**place)
        self.tokenizer: Any = component(CLIPTokenizer, self.folder("tokenizer"))
        channels = int(self.vae.config.latent_channels)
        side = square(self.unet, channels)
        self.sample_shape = (channels, side, side)
        self.image_size = side * 2 ** (len(self.vae.config.block_out_channels) - 1)

    def predict(self, x: torch.Tensor, t: torch.Tensor, **states: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.unet(x.to(self.unet.dtype), t, **states, return_dict=False)[0]
        return output

    def posterior(self, pixels: torch.Tensor) -> torch.Tensor:
        import torch

        found = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist
        scale, shift = self.vae.config.scaling_factor, self.vae.config.shift_factor or 0.0
        return torch.stack([(found.mean - shift) * scale, found.std * scale], dim=1)

    def picture(self, latents: torch.Tensor) -> torch.Tensor:
        scale, shift = self.vae.config.scaling_factor, self.vae.config.shift_factor or 0.0
        image: torch.Tensor = self.vae.decode((latents / scale + shift).to(self.vae.dtype), return_dict=False)[0]
        return image

    def network(self) -> torch.nn.Module:
        unet: torch.nn.Module = self.unet
        return unet

    def tokens(self, texts: Sequence[str]) -> torch.Tensor:
        encoded: torch.Tensor = self.tokenizer(
            list(texts), padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        return encoded

    def text_states(self, tokens: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.text_encoder(tokens)[0]
        return states


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [StableDiffusion]
