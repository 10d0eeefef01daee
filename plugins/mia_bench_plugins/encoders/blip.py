"""BLIP: captions for images, and images and captions in one space (Li et al., ICML 2022, arXiv:2201.12086)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mia_bench import hookimpl
from mia_bench.encoder import Encoder, EncoderMeta, Offer
from mia_bench_plugins.encoders.hub import HubEncoder, fetching

if TYPE_CHECKING:
    import torch

    from mia_bench.target import Target

CAPTIONING, RETRIEVAL = "Salesforce/blip-image-captioning-base", "Salesforce/blip-itm-base-coco"
# Of a caption, tokens. As in the authors' demonstration, which also begins each with "a picture of" and cuts that off;
# here a caption begins freely, as the hub's page has it.
BEAMS, SHORTEST, LONGEST = 3, 5, 20


class Blip(HubEncoder):
    """Two checkpoints: the captioner has no text encoder, the retrieval model no decoder."""

    meta = EncoderMeta(
        name="blip",
        summary="BLIP base, captioner and retrieval model",
        offers=frozenset({Offer.EMBED, Offer.DISTANCE, Offer.TEXT, Offer.CAPTION}),
        source=f"https://huggingface.co/{CAPTIONING} and https://huggingface.co/{RETRIEVAL}",
        fetch=fetching(CAPTIONING, RETRIEVAL),
        argument="FOLDER",
        licence="BSD-3-Clause",
        citation="Li et al., ICML 2022",
    )
    repositories = (CAPTIONING, RETRIEVAL)

    def load(self, target: Target) -> None:
        from transformers import BertTokenizer, BlipForConditionalGeneration, BlipForImageTextRetrieval

        self.captioner = self.model(BlipForConditionalGeneration, CAPTIONING).to(target.device)
        self.net = self.model(BlipForImageTextRetrieval, RETRIEVAL).to(target.device)
        self.captions_of = self.tokenizer(BertTokenizer, CAPTIONING)
        self.words = self.tokenizer(BertTokenizer, RETRIEVAL)
        self.prepare, self.prepare_captioned = self.preparation(RETRIEVAL), self.preparation(CAPTIONING)

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.net.vision_model(pixel_values=self.prepare(images)).last_hidden_state
        features: torch.Tensor = self.net.vision_proj(tokens[:, 0])
        return features

    def worded(self, texts: Sequence[str]) -> torch.Tensor:
        longest = self.net.config.text_config.max_position_embeddings
        tokens = self.words(list(texts), truncation=True, max_length=longest, return_tensors="pt")
        states = self.net.text_encoder(
            input_ids=tokens.input_ids.to(self.net.device), attention_mask=tokens.attention_mask.to(self.net.device)
        ).last_hidden_state
        features: torch.Tensor = self.net.text_proj(states[:, 0])
        return features

    def captioned(self, images: torch.Tensor) -> list[str]:
        tokens = self.captioner.generate(
            pixel_values=self.prepare_captioned(images),
            num_beams=BEAMS,
            min_length=SHORTEST,
            max_length=LONGEST,
            do_sample=False,
        )
        return [text.strip() for text in self.captions_of.batch_decode(tokens, skip_special_tokens=True)]


@hookimpl
def mia_bench_encoders() -> list[type[Encoder]]:
    return [Blip]
