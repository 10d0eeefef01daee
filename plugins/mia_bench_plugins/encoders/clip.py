"""CLIP: images and captions in one space (Radford et al., ICML 2021, arXiv:2103.00020)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mia_bench import hookimpl
from mia_bench.encoder import Encoder, EncoderMeta, Offer
from mia_bench_plugins.encoders.hub import HubEncoder, fetching

if TYPE_CHECKING:
    import torch

    from mia_bench.target import Target

REPOSITORY = "openai/clip-vit-large-patch14"


class Clip(HubEncoder):
    """Both towers with their projections, before normalisation."""

    meta = EncoderMeta(
        name="clip",
        summary="CLIP ViT-L/14, or another CLIP in a folder",
        offers=frozenset({Offer.EMBED, Offer.DISTANCE, Offer.TEXT}),
        source=f"https://huggingface.co/{REPOSITORY}",
        fetch=fetching(REPOSITORY),
        argument="FOLDER",
        licence="MIT",
        citation="Radford et al., ICML 2021",
    )
    repositories = (REPOSITORY,)

    def load(self, target: Target) -> None:
        from transformers import CLIPModel, CLIPTokenizer

        self.net = self.model(CLIPModel, REPOSITORY).to(target.device)
        self.words = self.tokenizer(CLIPTokenizer, REPOSITORY)
        self.prepare = self.preparation(REPOSITORY)

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        pooled = self.net.vision_model(pixel_values=self.prepare(images)).pooler_output
        features: torch.Tensor = self.net.visual_projection(pooled)
        return features

    def worded(self, texts: Sequence[str]) -> torch.Tensor:
        longest = self.net.config.text_config.max_position_embeddings
        tokens = self.words(list(texts), truncation=True, max_length=longest, return_tensors="pt")
        pooled = self.net.text_model(
            input_ids=tokens.input_ids.to(self.net.device), attention_mask=tokens.attention_mask.to(self.net.device)
        ).pooler_output
        features: torch.Tensor = self.net.text_projection(pooled)
        return features


@hookimpl
def mia_bench_encoders() -> list[type[Encoder]]:
    return [Clip]
