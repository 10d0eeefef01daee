"""The target's own view of a picture: its autoencoder's latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mia_bench import hookimpl
from mia_bench.encoder import Encoder, EncoderMeta, Offer
from mia_bench.errors import UsageError

if TYPE_CHECKING:
    import torch

    from mia_bench.target import Target

CELLS = 4  # a side: coarse enough for a small shift, fine enough for what lies where


class Vae(Encoder):
    """Means of the latents over 4x4 cells; images at the target's resolution."""

    meta = EncoderMeta(
        name="vae",
        summary="the target's own latents, averaged over 4x4 cells",
        offers=frozenset({Offer.EMBED, Offer.DISTANCE}),
        source="the target",
        offline=True,
    )

    def load(self, target: Target) -> None:
        if target.meta.kind != "latent":
            why = f"{target.meta.name} works on pixels and has no autoencoder"
            raise UsageError("encoder vae", why, "use another, such as [pixels] or [emoji-lpips]")
        self.target = target

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional

        size = (self.target.image_size,) * 2
        if tuple(images.shape[-2:]) != size:
            images = functional.interpolate(images, size, mode="bilinear", antialias=True)
        latents = self.target.posterior(images)[:, 0].float()
        return functional.adaptive_avg_pool2d(latents, CELLS).flatten(1)


@hookimpl
def mia_bench_encoders() -> list[type[Encoder]]:
    return [Vae]
