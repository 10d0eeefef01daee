"""Unconditional pixel-space DDPMs (Ho et al. 2020, arXiv:2006.11239)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench import Capability, Target, TargetMeta, hookimpl
from mia_bench.diffusion.folder import component, hash_files, schedule_of, square

if TYPE_CHECKING:
    import torch


class DDPM(Target):
    """A `DDPMPipeline` folder in diffusers' layout: a `UNet2DModel` on pixels in [-1, 1]."""

    meta = TargetMeta(
        name="ddpm",
        summary="unconditional pixel-space DDPM from a diffusers folder",
        kind="pixel",
        capabilities=frozenset({Capability.DENOISE, Capability.GENERATE, Capability.GRADIENT}),
        pipelines=frozenset({"DDPMPipeline", "DDIMPipeline"}),
        citation="Ho, Jain, Abbeel, NeurIPS 2020, arXiv:2006.11239",
    )

    def weights(self) -> Mapping[str, str]:
        root = Path(self.argument)
        return {f"{p}/{name}": h for p in ("scheduler", "unet") for name, h in hash_files(root / p).items()}

    def load(self) -> None:
        import torch
        from diffusers import UNet2DModel

        root = Path(self.argument)
        self.schedule = schedule_of(root / "scheduler")
        self.unet: Any = component(UNet2DModel, root / "unet").to(
            device=torch.device(self.device), dtype=getattr(torch, self.dtype)
        )
        self.image_size = square(self.unet, channels=3)
        self.sample_shape = (3, self.image_size, self.image_size)

    def predict(self, x: torch.Tensor, t: torch.Tensor, **states: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.unet(x.to(self.unet.dtype), t, return_dict=False)[0]
        return output

    def network(self) -> torch.nn.Module:
        unet: torch.nn.Module = self.unet
        return unet


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [DDPM]
