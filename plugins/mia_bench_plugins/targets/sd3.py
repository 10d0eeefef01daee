"""Stable Diffusion 3 and 3.5: a transformer over image and text tokens, two CLIP encoders and, if it is there, T5."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mia_bench import Target, TargetMeta, hookimpl
from mia_bench.diffusion.pipeline import ids
from mia_bench_plugins.targets.flow import FlowTransformer
from mia_bench_plugins.targets.stable_diffusion import EVERYTHING

if TYPE_CHECKING:
    import torch

T5_TOKENS = 256  # as the pipeline


class StableDiffusion3(FlowTransformer):
    """Without the T5 encoder its states are zeros, as in the pipeline."""

    meta = TargetMeta(
        name="stable-diffusion-3",
        summary="Stable Diffusion 3 and 3.5: flow matching, three text encoders of which T5 may be absent",
        kind="latent",
        capabilities=EVERYTHING,
        pipelines=frozenset({"StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline"}),
        citation="Esser et al., ICML 2024, arXiv:2403.03206",
    )
    parts = {
        "scheduler": (),
        "text_encoder": ("CLIPTextModelWithProjection",),
        "text_encoder_2": ("CLIPTextModelWithProjection",),
        "text_encoder_3": ("T5EncoderModel",),
        "tokenizer": ("CLIPTokenizer",),
        "tokenizer_2": ("CLIPTokenizer",),
        "tokenizer_3": ("T5Tokenizer",),
        "transformer": ("SD3Transformer2DModel",),
        "vae": ("AutoencoderKL",),
    }
    optional = frozenset({"text_encoder_3", "tokenizer_3"})

    def fit(self) -> None:
        from mia_bench.diffusion.checkpoint import square

        super().fit()
        channels = int(self.vae.config.latent_channels)
        patch = int(self.transformer.config.patch_size)
        self.shape(channels, square(self.transformer, channels), self.factor, patch)
        self.pooled = int(self.text_encoder.config.projection_dim + self.text_encoder_2.config.projection_dim)
        self.length = int(self.tokenizer.model_max_length)

    def predict(self, x: torch.Tensor, t: torch.Tensor, **states: torch.Tensor) -> torch.Tensor:
        from mia_bench.diffusion.pooled import unpacked

        texts, pooled = unpacked(states["encoder_hidden_states"], self.pooled)
        output: torch.Tensor = self.transformer(
            hidden_states=x.to(self.transformer.dtype),
            timestep=1000 * self.sigma(t),
            encoder_hidden_states=texts,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        return output

    def tokens(self, texts: Sequence[str]) -> torch.Tensor:
        from mia_bench.diffusion.pooled import stacked

        found = [ids(t, texts, self.length) for t in (self.tokenizer, self.tokenizer_2)]
        return stacked(found + ([ids(self.tokenizer_3, texts, T5_TOKENS)] if self.text_encoder_3 else []))

    def text_states(self, tokens: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn import functional

        from mia_bench.diffusion.pooled import packed, unstacked

        first, second, *third = unstacked(tokens, [self.length, self.length, T5_TOKENS][: tokens.shape[1]])
        clip = (
            self.text_encoder(first, output_hidden_states=True),
            self.text_encoder_2(second, output_hidden_states=True),
        )
        states = torch.cat([c.hidden_states[-2] for c in clip], dim=-1)
        width = int(self.transformer.config.joint_attention_dim)
        t5 = self.text_encoder_3(third[0])[0] if third else states.new_zeros(len(tokens), T5_TOKENS, width)
        states = functional.pad(states, (0, width - states.shape[-1]))
        return packed(torch.cat([states, t5.to(states.dtype)], dim=1), torch.cat([c[0] for c in clip], dim=-1))


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [StableDiffusion3]
