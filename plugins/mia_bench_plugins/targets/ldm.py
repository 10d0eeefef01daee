"""Unconditional latent diffusion (Rombach et al. 2022): an autoencoder and a `UNet2DModel` on its latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mia_bench import Capability, Target, TargetMeta, hookimpl
from mia_bench.diffusion.pipeline import PipelineTarget

if TYPE_CHECKING:
    import torch


class LatentDiffusion(PipelineTarget):
    """A vector-quantised autoencoder has no posterior: its latents are the encoder's output before quantisation."""

    meta = TargetMeta(
        name="ldm",
        summary="unconditional latent diffusion: VQ or KL autoencoder, U-Net",
        kind="latent",
        capabilities=frozenset({Capability.DENOISE, Capability.GENERATE, Capability.GRADIENT}),
        pipelines=frozenset({"LDMPipeline"}),
        citation="Rombach et al., CVPR 2022, arXiv:2112.10752",
    )
    parts = {"scheduler": (), "unet": ("UNet2DModel",), "vqvae": ("VQModel", "AutoencoderKL")}
    vae_part = "vqvae"
    reads = PipelineTarget.reads - {"lora", "config"}

    def predict(self, x: torch.Tensor, t: torch.Tensor, **states: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.unet(x.to(self.unet.dtype), t, return_dict=False)[0]
        return output

    def posterior(self, pixels: torch.Tensor) -> torch.Tensor:
        import torch

        found = self.vqvae.encode(pixels.to(self.vqvae.dtype))
        if not hasattr(found, "latents"):
            return super().posterior(pixels)
        mean = found.latents * self.vqvae.config.scaling_factor
        return torch.stack([mean, torch.zeros_like(mean)], dim=1)


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [LatentDiffusion]
