"""DINO: a self-supervised ViT whose class token looks at the objects (Caron et al., ICCV 2021, arXiv:2104.14294)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mia_bench import hookimpl
from mia_bench.encoder import Encoder, EncoderMeta, Offer
from mia_bench_plugins.encoders.hub import HubEncoder, fetching

if TYPE_CHECKING:
    import torch

    from mia_bench.target import Target

REPOSITORY = "facebook/dino-vits8"


class Dino(HubEncoder):
    """The class token after the last layer norm, and what the last block lets it look at, averaged over heads.

    Images go through one by one: attention over 785 tokens takes 15 MB an image and layer.
    """

    meta = EncoderMeta(
        name="dino",
        summary="DINO ViT-S/8, or another ViT in a folder",
        offers=frozenset({Offer.EMBED, Offer.DISTANCE, Offer.ATTENTION}),
        source=f"https://huggingface.co/{REPOSITORY}",
        fetch=fetching(REPOSITORY),
        argument="FOLDER",
        licence="Apache-2.0",
        citation="Caron et al., ICCV 2021",
    )
    repositories = (REPOSITORY,)

    def load(self, target: Target) -> None:
        from transformers import ViTModel

        net = self.model(ViTModel, REPOSITORY, add_pooling_layer=False, attn_implementation="eager")
        self.net, self.prepare = net.to(target.device), self.preparation(REPOSITORY)

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.cat([self.net(image[None]).last_hidden_state[:, 0] for image in self.prepare(images)])

    def attended(self, images: torch.Tensor) -> torch.Tensor:
        import torch

        return torch.cat([self._attention(image[None]) for image in self.prepare(images)])

    def _attention(self, image: torch.Tensor) -> torch.Tensor:
        """`(1, 3, S, S)` -> `(1, h, w)`."""
        heads = self.net(image, output_attentions=True).attentions[-1]  # (1, heads, 1 + h * w, 1 + h * w)
        side = image.shape[-1] // self.net.config.patch_size
        looked: torch.Tensor = heads[:, :, 0, 1:].mean(1)
        return looked.reshape(1, side, side)


@hookimpl
def mia_bench_encoders() -> list[type[Encoder]]:
    return [Dino]
