"""Structural: what is left of an image after a little inversion (Li et al. 2024, arXiv:2407.13252)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mia_bench import Access, Attack, Measured, Meta, hookimpl

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target


class Structural(Attack):
    """Structural similarity of the image and its own deterministic noising, decoded: members keep their structure.

    The noised latents are decoded as they are, neither rescaled nor denoised. Nothing is random. Left open by the
    paper and chosen here: colour images, their channels compared one by one; decoded values clamped to [0, 1], not
    rounded to 8 bits; SSIM with its authors' window.
    """

    meta = Meta(
        name="structural",
        summary="structural similarity of the image and its decoded deterministic noising",
        paper="arXiv:2407.13252",
        citation="Li et al., ACM MM 2024",
        licence="no program",
        access=Access.NOISE,
        orientation="higher is member",
        equation="SSIM(x, D(z_100)), z_0 = E(x), z_{t+50} by DDIM inversion",
        faults=(
            "Published figures compare LAION members with COCO non-members: other images, not only other membership.",
            "The autoencoder's own error is part of the score: where it is coarse, it hides what the noising changes.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            t: Where the inversion ends.
            stride: Timesteps of each move; the last is shorter where they do not fit.
            prompt: What it is conditioned on: the sample's `caption` (BLIP's in the paper), or the empty one, `null`.
            label: Which end of a move the network is told: `destination`, as diffusers does, or `source`.
        """

        t: int = Field(100, ge=1, le=999)
        stride: int = Field(50, ge=1)
        prompt: Literal["caption", "null"] = "caption"
        label: Literal["source", "destination"] = "destination"

    presets = {"null": {"prompt": "null"}, "source": {"label": "source"}}

    def queries(self) -> int:
        return len(self.path()) - 1

    def path(self) -> list[int]:
        """Timesteps of the inversion, from the clean image on."""
        return [*range(0, self.params.t, self.params.stride), self.params.t]

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        from mia_bench.diffusion.sampler import walk
        from mia_bench.diffusion.ssim import ssim

        given = batch.condition if self.params.prompt == "caption" else batch.null
        *_, noised = walk(target, batch.x0, self.path(), given, label=self.params.label)
        return {"ssim": ssim(unit(batch.pixels), unit(target.decode(noised)))}

    def score(self, measured: Measured, calibration: Measured | None) -> NDArray[np.float64]:
        return measured["ssim"]


def unit(pixels: torch.Tensor) -> torch.Tensor:
    """[-1, 1] -> [0, 1], clamped."""
    return ((pixels + 1) / 2).clamp(0, 1)


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [Structural]
