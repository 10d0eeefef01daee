"""Sweep: image-to-image at rising strengths (Bohacek & Farid 2025, arXiv:2501.06399)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from mia_bench import Access, Attack, Capability, Measured, Meta, Scores, hookimpl, scoring
from mia_bench.attack import PARTIAL
from mia_bench.diffusion.strength import steps_at
from mia_bench.encoder import Offer
from mia_bench.fit import TAG, held_out, logistic

if TYPE_CHECKING:
    import torch

    from mia_bench.batch import Batch
    from mia_bench.target import Target

Strength = Annotated[float, Field(gt=0, le=1)]


class Sweep(Attack):
    """How far the target strays from the image when it starts from it, noised more and more: members draw it back.

    A logistic regression on the distances v_i at strengths s_i is fitted on the calibration set. Established: the
    distance (DreamSim), the range of strengths, the regression. Ours: its penalty (L2, C = 1), standardisation and
    folds. The inner strengths and the least of four repeats are a course project's.

    At strength s the last `int(N s)` of N steps are run, at least one; even at 1 the start keeps a trace of the image.
    v need not rise with s. At the lowest strength most of it is the autoencoder's own error, measured beside it.

    Sampling is deterministic: repeats differ by their start noise alone, and from one start they would be one image,
    so no query of a repeat serves another. Starts of one level and number share their noise, whichever attack asks:
    all encoders judge the same images, made once.

    `@course` scores 0.25 - v at the highest strength: above 0 where the published rule says member. Tables rank the
    scores and choose thresholds of their own; the sign stays in the scores file.
    """

    meta = Meta(
        name="sweep",
        summary="distance from image-to-image generations over strengths",
        paper="arXiv:2501.06399",
        citation="Bohacek & Farid, ICCV Workshops 2025",
        licence="no program; data only",
        access=Access.IMAGES,
        needs=frozenset({Capability.CAPTION, Capability.GENERATE, Capability.VARY}),
        caption="required",
        calibration="optional",
        equation="logit P(member | v_1, ..., v_S), v_i = min_j d(x, img2img(x, c; s_i, ε_ij))",
        faults=(
            "The published target is tuned for 100 steps on 100 images, far easier than pre-training; its members' "
            "captions are those of training, or alternates of them: wording may tell members.",
            "LPIPS, the least of four and the threshold 0.25, often taken for the paper's, are a course project's; it "
            "gives LPIPS images in [0, 1] where [-1, 1] is expected, so that its 0.25 holds on that scale alone.",
            "It squeezes whole images into 256 x 256; here they are cropped to a square before.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            encoder: Whose distance is taken; `dreamsim` in the paper.
            strengths: Strengths of the generations.
            repeats: Generations at each strength.
            steps: Steps of the whole way from noise.
            guidance: w; 0 and 1 need one query a step.
            side: Both images are resized to so many pixels a side before they are compared; not at all if not given.
            legacy_range: Whether the encoder, which expects [-1, 1], is given images in [0, 1].
            aggregate: Over the repeats.
            rule: `logistic` regression, or training-free: minus v at the `highest` strength, minus the `mean` of v,
                or minus the `autoencoder`'s error alone. Without a calibration set `logistic` gives way to `highest`.
            threshold: A training-free score is this less the distance: it moves their zero, not their order.
        """

        encoder: str = "dreamsim"
        strengths: tuple[Strength, ...] = Field((0.02, 0.2, 0.4, 0.6, 0.8, 1.0), min_length=1)
        repeats: int = Field(4, ge=1)
        steps: int = Field(50, ge=1, le=999)
        guidance: float = Field(7.5, ge=0)
        side: int | None = Field(None, ge=1)
        legacy_range: bool = False
        aggregate: Literal["min", "mean"] = scoring("min")
        rule: Literal["logistic", "highest", "mean", "autoencoder"] = scoring("logistic")
        threshold: float = scoring(0.0)

    presets = {
        **{rule: {"rule": rule} for rule in ("highest", "mean", "autoencoder")},
        "course": {"encoder": "lpips", "side": 256, "legacy_range": True, "rule": "highest", "threshold": 0.25},
        "quick": {"samples": 75, "encoder": "emoji-lpips", "repeats": 1, "steps": 10},
    }
    aliases: ClassVar[Mapping[str, str]] = {"sweep-lpips": "sweep[lpips]", "sweep-dreamsim": "sweep[dreamsim]"}

    def queries(self) -> int:
        p = self.params
        halves = 1 if p.guidance in (0, 1) else 2
        return sum(halves * p.repeats * steps_at(p.steps, strength) for strength in p.strengths)

    def generations(self) -> int:
        return len(self.params.strengths) * int(self.params.repeats)

    def encoders(self) -> Mapping[str, frozenset[Offer]]:
        return {self.params.encoder: frozenset({Offer.DISTANCE})}

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        import torch

        p, own = self.params, self.shown(batch.pixels)

        def distance(made: torch.Tensor) -> torch.Tensor:
            return target.encoders[p.encoder].distance(own, self.shown(made))

        repeats = [[distance(self.made(batch, target, s, j)) for j in range(p.repeats)] for s in p.strengths]
        return {
            "distances": torch.stack([torch.stack(one, dim=1) for one in repeats], dim=1),  # (B, strengths, repeats)
            "autoencoder": distance(target.shown(batch.x0)),  # (B,)
        }

    def made(self, batch: Batch, target: Target, strength: float, draw: int) -> torch.Tensor:
        """One generation for each sample, `(B, 3, H, W)`."""
        texts, how = [c or "" for c in batch.captions], {"steps": self.params.steps, "guidance": self.params.guidance}
        return target.generate(batch, texts, strength=strength, draw=draw, **how)

    def shown(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images as the encoder is given them."""
        from mia_bench.diffusion.views import resized

        pixels = resized(pixels, self.params.side) if self.params.side else pixels
        return (pixels + 1) / 2 if self.params.legacy_range else pixels

    def artifacts(self, batch: Batch, target: Target) -> Mapping[str, torch.Tensor]:
        strip = {f"strength {s:g}": self.made(batch, target, s, 0) for s in sorted(self.params.strengths)}
        return {"original": batch.pixels, **strip, "difference": ([*strip.values()][-1] - batch.pixels).abs() - 1}

    def score(self, measured: Measured, calibration: Measured | None) -> Scores:
        p, distances = self.params, measured["distances"]
        v = distances.min(axis=2) if p.aggregate == "min" else distances.mean(axis=2)  # (N, strengths)
        if p.rule == "logistic" and calibration is not None:
            return Scores(held_out(v, measured, calibration, logistic), tags=(PARTIAL, TAG))
        training_free = {"mean": v.mean(axis=1), "autoencoder": measured["autoencoder"]}
        distance = training_free.get(p.rule, v[:, np.argmax(p.strengths)])
        return Scores(p.threshold - distance, tags=(PARTIAL, "training-free") if p.rule == "logistic" else (PARTIAL,))


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [Sweep]
