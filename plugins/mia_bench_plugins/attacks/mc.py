"""M.C.: the denoising error averaged over three neighbouring timesteps.

This is exactly the term L(x, c) of CLiD (Zhai et al. 2024, arXiv:2405.14800, Eq. 15, §4.1, App. D.1).
"""

from __future__ import annotations

from math import pi, sqrt
from typing import TYPE_CHECKING, Any, Literal

from mia_bench import Access, Attack, Measured, Meta, Timestep, by_kind, hookimpl
from mia_bench.diffusion.reduce import power_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target


class MonteCarlo(Attack):
    """A Monte-Carlo estimate of the loss: one independent noise draw at each of several timesteps."""

    meta = Meta(
        name="mc",
        summary="denoising error averaged over three timesteps",
        paper="arXiv:2405.14800",
        citation="Zhai et al., NeurIPS 2024, Eq. 15",
        licence="none stated",
        access=Access.LOSS,
        equation="s = -mean_t mean (e(x_t, t, c) - ε_t)², x_t = a_t x_0 + b_t ε_t, ε_t ~ N(0, I) independent",
        faults=(
            "The paper evaluates latents alone: the timesteps in pixel space are ours.",
            "CopyMark's program computes this, over 50 timesteps with one draw, under the names PIA and PIAN: "
            "`copymark-pia`, `copymark-pian`.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            t: Timesteps; {440, 450, 460} on latents. Not defined in pixel space, where ours are {190, 200, 210}.
            noise: A `fresh` draw for each timestep, one `shared` by all, or one shared and `normalised` to the mean
                magnitude of a standard normal.
        """

        t: tuple[Timestep, ...] = by_kind(pixel=(190, 200, 210), latent=(440, 450, 460), min_length=1)
        noise: Literal["fresh", "shared", "normalised"] = "fresh"

    # What CopyMark (Liang & You 2024, arXiv:2410.03640) calls PIA and PIAN: its program never asks for the noise
    # predicted on the clean image, compares with a random draw, and sums 50 timesteps.
    presets = {
        "copymark-pia": {"t": tuple(range(501, 1, -10)), "noise": "shared"},
        "copymark-pian": {"t": tuple(range(501, 1, -10)), "noise": "normalised"},
    }

    def queries(self) -> int:
        return len(self.params.t)

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        t, noise = self.params.t, self.params.noise
        eps = batch.eps(t) if noise == "fresh" else batch.eps(t[0])[:, None]  # (B, T, C, H, W), or 1 for all t
        if noise == "normalised":
            eps = eps * (sqrt(2 / pi) / power_mean(eps, 1))[..., None, None, None]
        predicted = target.denoiser(target.schedule.noised(batch.x0, eps, t), t, batch.condition)
        return {"losses": power_mean(predicted - eps)}  # (B, T)

    def score(self, measured: Measured, calibration: Measured | None) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = -measured["losses"].mean(axis=1)
        return scores


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [MonteCarlo]
