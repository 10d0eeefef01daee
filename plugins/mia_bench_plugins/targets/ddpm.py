"""Pixel-space DDPMs (Ho et al. 2020, arXiv:2006.11239), unconditional or conditioned on a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mia_bench import Capability, Target, TargetMeta, hookimpl
from mia_bench.diffusion.pipeline import PipelineTarget
from mia_bench.errors import SampleError

if TYPE_CHECKING:
    import torch


class DDPM(PipelineTarget):
    """A `UNet2DModel` on pixels in [-1, 1].

    With class embeddings, a sample's caption is its class: a number, or a name in `id2label` of `model_index.json`.
    The empty caption is the null class, the one past the named classes; without one, samples must have captions, and
    nothing can be guided.
    """

    meta = TargetMeta(
        name="ddpm",
        summary="pixel-space DDPM, unconditional or class-conditional",
        kind="pixel",
        capabilities=frozenset({Capability.DENOISE, Capability.GENERATE, Capability.GRADIENT}),
        pipelines=frozenset({"DDPMPipeline", "DDIMPipeline"}),
        citation="Ho, Jain, Abbeel, NeurIPS 2020, arXiv:2006.11239",
    )
    parts = {"scheduler": (), "unet": ("UNet2DModel",)}
    vae_part = ""
    reads = PipelineTarget.reads - {"lora", "config"}

    def fit(self) -> None:
        from mia_bench.diffusion.checkpoint import square

        self.check_unet("num_class_embeds")
        self.shape(3, square(self.unet, channels=3))

    @cached_property
    def classes(self) -> int:
        """Number of class embeddings; 0 for an unconditional model."""
        return int(self.checkpoint.config("unet").get("num_class_embeds") or 0)

    @cached_property
    def labels(self) -> Mapping[str, int]:
        """Numbers of the named classes, by name in lower case; each of several names joined by commas."""
        named = self.checkpoint.index().get("id2label") or {}
        return {
            name.strip().lower(): int(number)
            for number, names in named.items()
            for name in {names, *str(names).split(",")}
        }

    def settings(self) -> Mapping[str, Any]:
        if not self.labels:
            return super().settings()
        from mia_bench.diffusion.loaded import hash_json

        return {**super().settings(), "labels": hash_json(self.labels)}

    @property
    def null(self) -> int | None:
        """The null class, if there is one."""
        named = len(set(self.labels.values()))
        return named if 0 < named < self.classes else None

    @property
    def conditioned(self) -> bool:
        return self.classes > 0

    @property
    def guided(self) -> bool:
        return self.null is not None

    def tokens(self, texts: Sequence[str]) -> torch.Tensor:
        """Class numbers int64 `(N, 1)`."""
        import torch

        return torch.tensor([[self._class(text)] for text in texts])

    def text_states(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, :, None].float()

    def _class(self, text: str) -> int:
        word = text.strip().lower()
        number = self.labels.get(word, int(word) if word.isdecimal() else None) if word else self.null
        if number is None or number >= self.classes:
            what = "there is no null class for an empty caption" if not word else f"{text!r} is none of its classes"
            why = f"{what}; it has {self.classes}" + (f", e.g. {next(iter(self.labels))}" if self.labels else "")
            raise SampleError(f"target {self.meta.name}", why, "give each sample its class as caption")
        return number

    def predict(self, x: torch.Tensor, t: torch.Tensor, **states: torch.Tensor) -> torch.Tensor:
        given = {"class_labels": states["encoder_hidden_states"][:, 0, 0].long()} if states else {}
        output: torch.Tensor = self.unet(x.to(self.unet.dtype), t, **given, return_dict=False)[0]
        return output


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [DDPM]
