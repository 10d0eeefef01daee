"""DRC: degrade, restore, compare (Fu et al. 2024, arXiv:2403.08487)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mia_bench import Access, Attack, Capability, Measured, Meta, Scores, hookimpl, scoring
from mia_bench.attack import PARTIAL
from mia_bench.encoder import Offer

if TYPE_CHECKING:
    import torch

    from mia_bench.batch import Batch
    from mia_bench.target import Target

GUIDED: Mapping[str, Any] = {"prompt": "caption", "guidance": 7.5}


class DRC(Attack):
    """Similarity of the image and its restoration after the part that matters was hidden: members are known by heart.

    Hidden pixels are grey, and only this degraded image is encoded: nothing of what was hidden reaches the model. A
    latent in whose cell anything is hidden is generated, from noise; the others are put back after every step, noised
    to where the step ended (Eq. 4). In the end the known pixels themselves are put back.
    """

    meta = Meta(
        name="drc",
        summary="similarity of the image and its restoration by the model from a part of it",
        paper="arXiv:2403.08487",
        citation="Fu et al., 2024",
        licence="no program",
        access=Access.NOISE,
        needs=frozenset({Capability.DENOISE, Capability.GENERATE}),
        orientation="higher is member",
        equation="cos(f(x), f(x̂)), x̂ = restore(K ⊙ x), x_{t-1} = K ⊙ q(K ⊙ x, ε, t-1) + (1 - K) ⊙ step(x_t)",
        faults=(
            "There is no program. Established are the region of interest, the blending at every step (Eq. 4) and that "
            "several ratios were tried; the ratio, the sampler, its steps and the repeats here are ours.",
            "Accounts differ: DINO for region and comparison, as here; or CLIP, and for faces a face network.",
            "Of whole images the known part is a copy: that of the smallest rectangle around the hidden region is "
            "stored beside it, which for a scattered region is not much smaller.",
            "Its FFHQ figures take CelebA's images for non-members: other images, not only other membership.",
        ),
    )

    class Params(Attack.Params):
        """Parameters; the defaults are ours, but for the encoders.

        Attributes:
            roi: What is hidden: what an encoder's `attention` is on, where colours vary most in a window of a quarter
                of the side (`variance`), or the `centre`.
            ratio: Share of the area that is hidden.
            saliency: Encoder whose attention is read.
            encoder: Encoder that compares, by 1 - its distance: the cosine, for most that embed.
            part: What is compared: the whole `image`, or the smallest rectangle around what was `hidden`.
            prompt: What a text-to-image target is told: nothing, `null`, or the sample's `caption`.
            guidance: w of the caption; each step is two queries unless it is 0 or 1.
            steps: Of the whole way from noise.
            resamples: How often each stretch is walked, in random steps, as RePaint does; 1 is deterministic DDIM.
            jump: Steps of a stretch.
            draws: Restorations, each from its own noise; their similarities are averaged.
        """

        roi: Literal["attention", "variance", "centre"] = "attention"
        ratio: float = Field(0.5, gt=0, lt=1)
        saliency: str = "dino"
        encoder: str = "dino"
        part: Literal["image", "hidden"] = scoring("image")
        prompt: Literal["null", "caption"] = "null"
        guidance: float = Field(1.0, ge=0)
        steps: int = Field(50, ge=1, le=999)
        resamples: int = Field(1, ge=1)
        jump: int = Field(10, ge=1)
        draws: int = Field(1, ge=1)

    presets = {
        # The embedded targets saw their images with captions nine times in ten: without, they remember little.
        "quick": {"samples": 75, "roi": "variance", "encoder": "emoji-lpips", **GUIDED, "steps": 25},
        "guided": GUIDED,
        "hidden": {"part": "hidden"},
        "repaint": {"steps": 250, "resamples": 10},
    }

    def needs(self) -> frozenset[Capability]:
        return self.meta.needs | ({Capability.CAPTION} if self.params.prompt == "caption" else set())

    def encoders(self) -> Mapping[str, frozenset[Offer]]:
        p = self.params
        looks = {p.saliency: frozenset({Offer.ATTENTION})} if p.roi == "attention" else {}
        return {**looks, p.encoder: looks.get(p.encoder, frozenset()) | {Offer.DISTANCE}}

    def queries(self) -> int:
        p = self.params
        again = (p.resamples - 1) * p.jump * len(range(1, p.steps - p.jump + 1, p.jump))
        return int(p.draws * (p.steps + again) * (2 if p.prompt == "caption" and p.guidance not in (0, 1) else 1))

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        import torch

        from mia_bench.diffusion.regions import cropped

        encoder, hidden, images = target.encoders[self.params.encoder], self.hidden(batch, target), batch.pixels
        part, terms = cropped(images, hidden), []
        for draw in range(self.params.draws):
            made = self.restored(batch, target, hidden, draw)
            terms.append([1 - encoder.distance(images, made), 1 - encoder.distance(part, cropped(made, hidden))])
        whole, alone = (torch.stack(values, dim=1) for values in zip(*terms, strict=True))
        return {"image": whole, "hidden": alone}  # (B, draws) each

    def hidden(self, batch: Batch, target: Target) -> torch.Tensor:
        """The region of interest, bool `(B, 1, H, W)`."""
        from mia_bench.diffusion.regions import centrality, highest, local_variance, resized

        p, images = self.params, batch.pixels
        if p.roi == "attention":
            weight = resized(target.encoders[p.saliency].attention(images)[:, None], images.shape[-2:])[:, 0]
        else:
            weight = local_variance(images, images.shape[-1] // 4 | 1) if p.roi == "variance" else centrality(images)
        return highest(weight, p.ratio)[:, None]

    def restored(self, batch: Batch, target: Target, hidden: torch.Tensor, draw: int) -> torch.Tensor:
        """The images with their hidden part made by the model, `(B, 3, H, W)` in [-1, 1]."""
        import torch

        from mia_bench.diffusion.regions import cells
        from mia_bench.diffusion.repaint import restored

        p, degraded = self.params, batch.pixels.masked_fill(hidden, 0)
        known = batch.encode(degraded, f"drc:{p.roi}:{p.saliency}:{p.ratio}")
        given, guidance = (batch.null, 1.0) if p.prompt == "null" else (batch.condition, p.guidance)
        options = {"steps": p.steps, "guidance": guidance, "jump": p.jump, "resamples": p.resamples, "draw": draw}
        latents = restored(batch, known, cells(hidden, known.shape[-2:]), given, **options)
        return torch.where(hidden, target.shown(latents), degraded)

    def artifacts(self, batch: Batch, target: Target) -> dict[str, torch.Tensor]:
        images, hidden = batch.pixels, self.hidden(batch, target)
        made, degraded = self.restored(batch, target, hidden, 0), images.masked_fill(hidden, 0)
        return {"original": images, "degraded": degraded, "restored": made, "difference": (made - images).abs() - 1}

    def score(self, measured: Measured, calibration: Measured | None) -> Scores:
        return Scores(measured[self.params.part].mean(axis=1), tags=(PARTIAL,))


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [DRC]
