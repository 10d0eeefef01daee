"""FLUX.1: a transformer over packed latents, T5 states and a pooled CLIP embedding; a guidance scale as an input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mia_bench import Target, TargetMeta, hookimpl
from mia_bench.diffusion.pipeline import ids
from mia_bench.errors import UnavailableError
from mia_bench_plugins.targets.flow import FlowTransformer
from mia_bench_plugins.targets.stable_diffusion import EVERYTHING

if TYPE_CHECKING:
    import torch

GUIDANCE = 3.5  # what the distilled model is told, as the pipeline's default; not a guided step
SIDE = 128  # of the latents, as the pipeline's default: 1024 pixels
T5_TOKENS = {True: 512, False: 256}  # dev, schnell


class Flux(FlowTransformer):
    """FLUX.1 dev (a guidance scale of 3.5 is its input, fixed) and schnell (none).

    Latents are packed two by two into tokens within `predict`; attacks see `(16, H, W)`.
    """

    meta = TargetMeta(
        name="flux",
        summary="FLUX.1 dev and schnell: flow matching, packed latents, T5 and pooled CLIP",
        kind="latent",
        capabilities=EVERYTHING,
        pipelines=frozenset({"FluxPipeline", "FluxImg2ImgPipeline"}),
        citation="Black Forest Labs 2024; Labs et al. 2025, arXiv:2506.15742",
    )
    parts = {
        "scheduler": (),
        "text_encoder": ("CLIPTextModel",),
        "text_encoder_2": ("T5EncoderModel",),
        "tokenizer": ("CLIPTokenizer",),
        "tokenizer_2": ("T5Tokenizer",),
        "transformer": ("FluxTransformer2DModel",),
        "vae": ("AutoencoderKL",),
    }

    @property
    def distilled(self) -> bool:
        """Whether the guidance scale is an input."""
        return bool(self.checkpoint.config("transformer").get("guidance_embeds"))

    @property
    def guided(self) -> bool:
        """Never by a second query, whoever guides, as in its pipeline: it was distilled from guided steps."""
        return False

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), **({"guidance": GUIDANCE} if self.distilled else {})}

    def fit(self) -> None:
        super().fit()
        channels, config = int(self.vae.config.latent_channels), self.transformer.config
        if {config.in_channels, config.out_channels or config.in_channels} != {4 * channels}:
            why = f"{config.in_channels} channels in, where {4 * channels} are needed"
            raise UnavailableError("target part transformer", why, "fill, depth and canny models do not fit")
        self.shape(channels, SIDE, self.factor, 2)
        self.guidance = GUIDANCE if self.distilled else None
        self.pooled = int(self.text_encoder.config.hidden_size)
        self.lengths = int(self.tokenizer.model_max_length), T5_TOKENS[self.distilled]

    def predict(self, x: torch.Tensor, t: torch.Tensor, **states: torch.Tensor) -> torch.Tensor:
        import torch

        from mia_bench.diffusion.pooled import unpacked

        texts, pooled = unpacked(states["encoder_hidden_states"], self.pooled)
        rows, channels, height, width = x.shape
        tokens = x.reshape(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        place = torch.zeros(height // 2, width // 2, 3, device=x.device, dtype=texts.dtype)
        place[..., 1] += torch.arange(height // 2, device=x.device)[:, None]
        place[..., 2] += torch.arange(width // 2, device=x.device)
        output: torch.Tensor = self.transformer(
            hidden_states=tokens.reshape(rows, -1, 4 * channels).to(self.transformer.dtype),
            timestep=self.sigma(t),
            guidance=None if self.guidance is None else torch.full((rows,), self.guidance, device=x.device),
            pooled_projections=pooled,
            encoder_hidden_states=texts,
            txt_ids=texts.new_zeros(texts.shape[1], 3),
            img_ids=place.reshape(-1, 3),
            return_dict=False,
        )[0]
        output = output.reshape(rows, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return output.reshape(rows, channels, height, width)

    def tokens(self, texts: Sequence[str]) -> torch.Tensor:
        from mia_bench.diffusion.pooled import stacked

        pairs = zip((self.tokenizer, self.tokenizer_2), self.lengths, strict=True)
        return stacked([ids(tokenizer, texts, length) for tokenizer, length in pairs])

    def text_states(self, tokens: torch.Tensor) -> torch.Tensor:
        from mia_bench.diffusion.pooled import packed, unstacked

        clip, t5 = unstacked(tokens, self.lengths)
        return packed(self.text_encoder_2(t5)[0], self.text_encoder(clip).pooler_output)


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [Flux]
