"""Wen et al.: the magnitude of what the caption adds to the predicted noise (2024, arXiv:2407.21720, Section 3)."""

from __future__ import annotations

from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, model_validator

from mia_bench import Access, Attack, Capability, Measured, Meta, hookimpl
from mia_bench.diffusion.reduce import power_sum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target


class Wen(Attack):
    """How far the caption alone pulls a generation from noise: memorised captions pull hard, whatever the noise.

    It judges the caption; the image is never read. Samples with one caption differ in their noise only.
    """

    meta = Meta(
        name="wen",
        summary="how much the caption changes the noise predicted while an image is generated",
        paper="arXiv:2407.21720",
        citation="Wen, Liu, Chen, Lyu, ICLR 2024, Section 3",
        licence="none stated",
        access=Access.NOISE,
        needs=frozenset({Capability.DENOISE, Capability.CAPTION}),
        caption="required",
        orientation="higher is member",
        equation="mean over steps and generations of ‖ε(x_t, t, c) − ε(x_t, t, ∅)‖₂, x_T ~ N(0, I)",
        faults=(
            "Made to find memorised captions, not members: it says nothing of a member whose caption is common.",
            "Where the empty caption finds a memorised image too, the magnitude falls after the first steps, and "
            "`steps50` may point the wrong way.",
            "The authors' program seeds one stream for each caption by its place in the file and runs in float16.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            steps: Steps of the generation that are watched, from the noisiest on; 1, 10 and 50 in the paper.
            grid: Steps of the whole generation.
            generations: Generations from noise of their own.
            guidance: Weight w of the caption while generating; the first step does not depend on it.
        """

        steps: int = Field(1, ge=1)
        grid: int = Field(50, ge=1, le=999)
        generations: int = Field(1, ge=1)
        guidance: float = Field(7.5, ge=0)

        @model_validator(mode="after")
        def _steps_fit(self) -> Self:
            if self.steps > self.grid:
                raise ValueError(f"steps: {self.steps} of a generation of {self.grid}")
            return self

    presets = {
        "steps10": {"steps": 10},
        "steps50": {"steps": 50},
        "steps50x4": {"steps": 50, "generations": 4},
    }

    def queries(self) -> int:
        asked: int = 2 * self.params.steps * self.params.generations
        return asked

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        import torch

        from mia_bench.diffusion.keyed import plain
        from mia_bench.diffusion.sampler import levels, mixed

        path, norms = levels(target, self.params.grid)[::-1], []
        x: torch.Tensor = batch.eps(path[0], range(self.params.generations), "start")  # (B, generations, C, H, W)
        for t, to in islice(pairwise(path), self.params.steps):
            both = target.denoiser(x, t, [batch.condition, batch.null])
            given, null = plain(both).unbind(2)
            norms.append(power_sum(given - null))
            x = target.schedule.jump(x, mixed(both, self.params.guidance), t, to)
        return {"power": torch.stack(norms, dim=2)}  # (B, generations, steps): ‖ε(x_t, t, c) − ε(x_t, t, ∅)‖²

    def score(self, measured: Measured, calibration: Measured | None) -> NDArray[np.float64]:
        norms: NDArray[np.float64] = np.sqrt(measured["power"]).mean(axis=(1, 2))  # of (N, generations, steps)
        return norms


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [Wen]
