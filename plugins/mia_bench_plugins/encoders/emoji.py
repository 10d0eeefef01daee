"""The embedded encoders: a perceptual distance and an image-text similarity, of icons at 32 px."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mia_bench import hookimpl
from mia_bench.encoder import Encoder, EncoderMeta, Offer
from mia_bench_plugins.encoders import ICONS

if TYPE_CHECKING:
    import torch

    from mia_bench.target import Target

CODE = Path(__file__).with_name("icons.py")  # the networks' own: part of what defines these encoders
LICENCE = "Apache-2.0 and CC BY 4.0; see data/LICENSE.md"


class EmojiLpips(Encoder):
    """In the manner of LPIPS with unit weights; the embedding is the head that knew the icons' subgroups."""

    meta = EncoderMeta(
        name="emoji-lpips",
        summary="embedded perceptual distance, trained on icons",
        offers=frozenset({Offer.EMBED, Offer.DISTANCE}),
        source="mia-bench itself",
        offline=True,
        licence=LICENCE,
    )

    def files(self) -> Mapping[str, Path]:
        return {"model.safetensors": ICONS / "perceptual" / "model.safetensors", CODE.name: CODE}

    def load(self, target: Target) -> None:
        from mia_bench_plugins.encoders.icons import icon_net

        self.net, _ = icon_net("perceptual", target.device)

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        from mia_bench_plugins.encoders.icons import small

        features: torch.Tensor = self.net(small(images))
        return features

    def between(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        from mia_bench_plugins.encoders.icons import perceptual_distance, small

        return perceptual_distance(self.net, small(images), small(others))


class EmojiClip(Encoder):
    """In the manner of CLIP (Radford et al., 2021), with the embedded targets' text encoder."""

    meta = EncoderMeta(
        name="emoji-clip",
        summary="embedded image-text similarity, trained on icons",
        offers=frozenset({Offer.EMBED, Offer.DISTANCE, Offer.TEXT}),
        source="mia-bench itself",
        offline=True,
        licence=LICENCE,
    )

    def files(self) -> Mapping[str, Path]:
        folders = (ICONS / part for part in ("image_text", "text_encoder", "tokenizer"))
        found = {f"{folder.name}/{path.name}": path for folder in folders for path in sorted(folder.iterdir())}
        return found | {CODE.name: CODE}

    def load(self, target: Target) -> None:
        from mia_bench.diffusion.checkpoint import Folder
        from mia_bench_plugins.encoders.icons import icon_net

        self.net, others = icon_net("image_text", target.device)
        self.projection = others["text_projection"].to(target.device)
        self.states = Folder(ICONS).load(("CLIPTextModel",), "text_encoder").to(target.device)
        self.tokenizer = Folder(ICONS).load(("CLIPTokenizer",), "tokenizer")

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        from mia_bench_plugins.encoders.icons import small

        features: torch.Tensor = self.net(small(images))
        return features

    def worded(self, texts: Sequence[str]) -> torch.Tensor:
        from torch.nn import functional

        tokens = self.tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt").input_ids
        pooled = self.states(tokens.to(self.projection.device)).pooler_output
        return functional.normalize(pooled @ self.projection.T, dim=1)


@hookimpl
def mia_bench_encoders() -> list[type[Encoder]]:
    return [EmojiLpips, EmojiClip]
