"""Stable Diffusion XL: two CLIP text encoders, a pooled embedding, and the size of the image as conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mia_bench import Target, TargetMeta, hookimpl
from mia_bench.diffusion.pipeline import PipelineTarget, ids
from mia_bench_plugins.targets.stable_diffusion import EVERYTHING

if TYPE_CHECKING:
    import torch


class StableDiffusionXL(PipelineTarget):
    """The size conditions say what training says of a whole image: original and target size its own, crop (0, 0).

    The empty caption is the pipeline's null condition: zeros where `force_zeros_for_empty_prompt` is set.
    """

    meta = TargetMeta(
        name="stable-diffusion-xl",
        summary="Stable Diffusion XL: two text encoders, size conditions",
        kind="latent",
        capabilities=EVERYTHING,
        pipelines=frozenset({"StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"}),
        citation="Podell et al., ICLR 2024, arXiv:2307.01952",
    )
    parts = {
        "scheduler": (),
        "text_encoder": ("CLIPTextModel",),
        "text_encoder_2": ("CLIPTextModelWithProjection",),
        "tokenizer": ("CLIPTokenizer",),
        "tokenizer_2": ("CLIPTokenizer",),
        "unet": ("UNet2DConditionModel",),
        "vae": ("AutoencoderKL",),
    }
    upcast_vae = True

    def fit(self) -> None:
        super().fit()
        self.pooled = int(self.text_encoder_2.config.projection_dim)
        self.null = self.tokens([""]).to(self.device)

    @cached_property
    def zeros(self) -> bool:
        """Whether the null condition is zeros."""
        return bool(self.checkpoint.index().get("force_zeros_for_empty_prompt", True))

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), "force_zeros_for_empty_prompt": self.zeros}

    def check_unet(self, *expected: str) -> None:
        super().check_unet("addition_embed_type")

    def predict(self, x: torch.Tensor, t: torch.Tensor, **states: torch.Tensor) -> torch.Tensor:
        from mia_bench.diffusion.pooled import unpacked

        texts, pooled = unpacked(states["encoder_hidden_states"], self.pooled)
        side = x.new_full((), self.image_size)
        sizes = side * x.new_tensor([1, 1, 0, 0, 1, 1])  # original size, corner of the crop, target size
        added = {"text_embeds": pooled, "time_ids": sizes.expand(len(x), -1).to(texts.dtype)}
        output: torch.Tensor = self.unet(
            x.to(self.unet.dtype), t, encoder_hidden_states=texts, added_cond_kwargs=added, return_dict=False
        )[0]
        return output

    def tokens(self, texts: Sequence[str]) -> torch.Tensor:
        from mia_bench.diffusion.pooled import stacked

        return stacked([ids(self.tokenizer, texts), ids(self.tokenizer_2, texts)])

    def text_states(self, tokens: torch.Tensor) -> torch.Tensor:
        import torch

        from mia_bench.diffusion.pooled import packed, unstacked

        encoders = (self.text_encoder, self.text_encoder_2)
        lengths = [t.model_max_length for t in (self.tokenizer, self.tokenizer_2)]
        given = unstacked(tokens, lengths)
        outputs = [encoder(i, output_hidden_states=True) for encoder, i in zip(encoders, given, strict=True)]
        states = torch.cat([output.hidden_states[-2] for output in outputs], dim=-1)
        found = packed(states, outputs[1].text_embeds)
        if self.zeros:
            empty = (tokens == self.null).flatten(1).all(dim=1)
            found = torch.where(empty[:, None, None], torch.zeros_like(found), found)
        return found


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [StableDiffusionXL]
