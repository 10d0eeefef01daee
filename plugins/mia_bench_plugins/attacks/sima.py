"""SimA: the size of the predicted noise (Rao, Qu, Moyer 2025, arXiv:2509.25003)."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

from pydantic import Field

from mia_bench import Access, Attack, Measured, Meta, Timestep, hookimpl
from mia_bench.diffusion.reduce import power_sum

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target


class SimA(Attack):
    """How much noise the model sees in the clean image: least near its training images.

    The denoiser points from its input to a local mean of training images, so that its output is short on a member. The
    image is not noised, though the model is told t; one query, and nothing random. The Monte-Carlo form averages the
    predictions on n noised images, as vectors, and measures the average.
    """

    meta = Meta(
        name="sima",
        summary="size of the noise predicted on the clean image",
        paper="arXiv:2509.25003",
        citation="Rao, Qu, Moyer, TMLR",
        licence="MIT",
        access=Access.NOISE,
        equation="-Σ|e(x₀, t, c)|⁴; mc: -Σ|1/n Σ_j e(q(x₀, ε_j, t), t, c)|⁴",
        faults=(
            "The program takes the best t of 0..300 on the test set, for each metric by itself.",
            "The paper writes a norm; the program leaves out the root.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            t: Timestep that the model is told. The paper chooses it on the test set; 100 is ours.
            p: Power of the prediction, never rooted; 4 in the program and best in the paper's ablation.
            draws: Noised images, n, whose predictions are averaged; 0 asks once about the clean image.
        """

        t: Timestep = 100
        p: int = Field(4, ge=1, le=16)
        draws: int = Field(0, ge=0)

    presets = {"mc": {"draws": 30}}

    def queries(self) -> int:
        return int(max(1, self.params.draws))

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        import torch

        t, draws = self.params.t, self.params.draws
        if not draws:
            return {"power": power_sum(target.denoiser(batch.x0, [t], batch.condition), self.params.p)}  # (B, 1)
        predicted = target.denoiser(target.schedule.noised(batch.x0, batch.eps(t, range(draws)), t), t, batch.condition)
        means = [total / n for n, total in enumerate(accumulate(predicted.unbind(dim=1)), 1)]
        return {"power": power_sum(torch.stack(means, dim=1), self.params.p)}  # (B, draws): of the first n

    def score(self, measured: Measured, calibration: Measured | None) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = -measured["power"][:, -1]
        return scores


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [SimA]
