"""ReDiffuse: the mean of many variations of an image (Li et al. 2025, arXiv:2405.20771)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from mia_bench import Access, Attack, Capability, Measured, Meta, Scores, by_kind, hookimpl, scoring
from mia_bench.encoder import Offer
from mia_bench.fit import TAG, held_out
from mia_bench_plugins.attacks.secmi_nns import FOLDS, SecMINNs

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target


class ReDiffuse(Attack):
    """Distance of the image from the mean of its variations: a member's variations err around the image itself.

    A variation noises the image to level t and denoises it with DDIM in steps of k, the last one shorter where k does
    not fit; any service that offers variations can be asked. Variations are clamped to [-1, 1], as pictures are, then
    averaged; the distances of the means of the first 1, 2, ..., n are all stored. `@quick` has a t of ours, at which
    the error of a small autoencoder does not hide what the denoiser changes.

    `@resnet` has the map |x - mean| scored by the classifier of `secmi-nns`, which is trained as the authors train
    theirs, on the calibration set. (Theirs halves the image twice at once, by stride and by pooling.)
    """

    meta = Meta(
        name="rediffuse",
        summary="distance from the mean of noised and denoised variations",
        paper="arXiv:2405.20771",
        citation="Li, Dong, He, Zhang, ICML 2025",
        licence="none stated",
        access=Access.IMAGES,
        needs=frozenset({Capability.DENOISE, Capability.GENERATE}),
        calibration="optional",
        equation="-d(x, (1/n) Σ_i V(x, t; ε_i)), V = DDIM(√ᾱ_t x + √(1-ᾱ_t) ε; t, t-k, ..., 0)",
        faults=(
            "The Stable Diffusion program noises with linear betas where the model has scaled-linear ones, applies the "
            "pixels' 2x - 1 to latents, asks with guidance 7.5, and takes one variation, at t = 50.",
            "It compares with the decoded latents instead of the image, in grey, by SSIM over the range of each "
            "variation (in windows of 7 equal pixels; `repo-sd` has the usual windows).",
            "The paper's members are of LAION there, its others of COCO; averaging does not help (Fig. 8).",
            "For DiT, t is 150 in Section 5.3 and 100 in Appendix A.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            t: Noise level of a variation; with k, 200 and 100 in pixel space, 10 and 10 on latents.
            k: Timesteps of a step.
            n: Variations that are averaged.
            guidance: w; 0 and 1 need one query a step.
            encoder: Whose distance is taken; `pixels` in pixel space, `ssim` on latents. Not asked by `repo-sd`.
            rule: By `distance`, or by a `resnet` on the difference.
            side: Of the `resnet`: pixels a side of its maps; those of larger images are averaged.
            setting: As the `paper` has it, or as the authors' `repo-sd` script: see the faults.
            epochs: Of the `resnet`: passes over the calibration set.
            seed: Of the `resnet`: its first weights and the order of samples.
        """

        t: int = by_kind(pixel=200, latent=10, ge=1, le=999)
        k: int = by_kind(pixel=100, latent=10, ge=1)
        n: int = Field(10, ge=1)
        guidance: float = Field(1.0, ge=0)
        encoder: str = by_kind(pixel="pixels", latent="ssim")
        rule: Literal["distance", "resnet"] = "distance"
        side: int = Field(32, ge=1)
        setting: Literal["paper", "repo-sd"] = "paper"
        epochs: int = scoring(15, ge=1)
        seed: int = scoring(0, ge=0)

    presets = {
        "resnet": {"rule": "resnet", "encoder": "pixels"},
        "repo-sd": {"setting": "repo-sd", "t": 50, "k": 50, "n": 1, "guidance": 7.5},
        "quick": {"samples": 75, "t": 400, "k": 200, "n": 5},
    }

    def queries(self) -> int:
        return len(self.path()[1:]) * int(self.params.n) * (1 if self.params.guidance in (0, 1) else 2)

    def path(self) -> list[int]:
        return [*range(self.params.t, 0, -self.params.k), 0]

    def encoders(self) -> Mapping[str, frozenset[Offer]]:
        paper = self.params.setting == "paper" and self.params.rule == "distance"
        return {self.params.encoder: frozenset({Offer.DISTANCE})} if paper else {}

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        import torch
        from torch.nn.functional import adaptive_avg_pool2d

        original, means = self.original(batch, target), self.means(batch, target)
        if self.params.rule == "resnet":
            return {"map": adaptive_avg_pool2d((original - means[-1]).abs(), min(self.params.side, original.shape[-1]))}
        repo = self.params.setting == "repo-sd"
        distance = grey_distance if repo else target.encoders[self.params.encoder].distance
        return {"distances": torch.stack([distance(original, mean) for mean in means], dim=1)}  # (B, n)

    def original(self, batch: Batch, target: Target) -> torch.Tensor:
        return batch.pixels if self.params.setting == "paper" else target.shown(batch.x0)

    def means(self, batch: Batch, target: Target) -> list[torch.Tensor]:
        """Means of the first 1, 2, ..., n variations, each `(B, 3, H, W)`."""
        from mia_bench.diffusion.sampler import guided
        from mia_bench.diffusion.schedule import Schedule

        p, repo = self.params, self.params.setting == "repo-sd"
        given, null = batch.condition, batch.null if target.guided else None
        schedule = Schedule.from_betas(np.linspace(0.00085, 0.012, len(target.schedule))) if repo else target.schedule
        x = schedule.noised(2 * batch.x0 - 1 if repo else batch.x0, batch.eps(p.t, range(p.n)), p.t)  # (B, n, C, H, W)
        for t, to in pairwise(self.path()):
            x = schedule.jump(x, guided(target, x, t, given, null, p.guidance), t, to)
        variations = target.shown((x + 1) / 2 if repo else x).unbind(dim=1)
        return [total / (i + 1) for i, total in enumerate(accumulate(variations))]

    def artifacts(self, batch: Batch, target: Target) -> Mapping[str, torch.Tensor]:
        x, mean = self.original(batch, target), self.means(batch, target)[-1]
        return {"original": x, "mean variation": mean, "difference": (x - mean).abs() - 1}

    def score(self, measured: Measured, calibration: Measured | None) -> Scores | NDArray[np.float64]:
        if self.params.rule == "distance":
            return -measured["distances"][:, -1]
        network = SecMINNs(SecMINNs.Params(epochs=self.params.epochs, seed=self.params.seed))
        return Scores(held_out(measured["map"], measured, calibration, network.fit, FOLDS, at_once=True), tags=(TAG,))


def grey_distance(original: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """1 - SSIM of grey images in units of the second one's range, `(B,)`."""
    from mia_bench.diffusion.ssim import ssim
    from mia_bench.diffusion.views import luma

    x, y = (luma(original) + 1) / 2, (luma(mean) + 1) / 2
    span = (y.amax((1, 2, 3), keepdim=True) - y.amin((1, 2, 3), keepdim=True)).clamp(min=1 / 255)
    return 1 - ssim(x / span, y / span)


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [ReDiffuse]
