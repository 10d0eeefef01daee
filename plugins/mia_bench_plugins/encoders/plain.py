"""Comparing pictures without a network: structural similarity and squared differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mia_bench import hookimpl
from mia_bench.encoder import Encoder, EncoderMeta, Offer

if TYPE_CHECKING:
    import torch

    from mia_bench.target import Target


class Ssim(Encoder):
    """1 - structural similarity (Wang et al. 2004), of values clamped to [0, 1]."""

    meta = EncoderMeta(
        name="ssim",
        summary="structural similarity, no weights",
        offers=frozenset({Offer.DISTANCE}),
        source="its formula",
        offline=True,
        citation="Wang et al., IEEE TIP 2004",
    )

    def load(self, target: Target) -> None:
        pass

    def between(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        from mia_bench.diffusion.ssim import ssim

        left, right = (((x + 1) / 2).clamp(0, 1) for x in (images, others))
        return 1 - ssim(left, right)


class Pixels(Encoder):
    """The pixels themselves; the distance is the mean squared difference."""

    meta = EncoderMeta(
        name="pixels",
        summary="squared differences of pixels, no weights",
        offers=frozenset({Offer.EMBED, Offer.DISTANCE}),
        source="its formula",
        offline=True,
    )

    def load(self, target: Target) -> None:
        pass

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)

    def between(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        from mia_bench.diffusion.reduce import power_mean

        return power_mean(images - others)


@hookimpl
def mia_bench_encoders() -> list[type[Encoder]]:
    return [Ssim, Pixels]
