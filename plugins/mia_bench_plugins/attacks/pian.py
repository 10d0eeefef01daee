"""PIAN: PIA with the initial prediction normalised (Kong et al. 2024, arXiv:2305.18355, Eq. 10)."""

from __future__ import annotations

from math import pi, sqrt
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mia_bench import Access, Attack, Measured, Meta, Timestep, by_kind, hookimpl
from mia_bench.diffusion.reduce import power_mean, power_sum

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target

# Only sqrt(2/pi) gives the normalised prediction the mean magnitude of a standard normal, which is the stated aim; the
# paper prints its inverse.
KAPPA = {"normal": sqrt(2 / pi), "paper": sqrt(pi / 2)}


class PIAN(Attack):
    """As PIA, with the noise predicted on the clean image scaled to the mean magnitude of Gaussian noise.

    The normalised prediction both noises the image and is what the second prediction is compared with. On Stable
    Diffusion it fails by its authors' own account (AUC about 57, Table 3).
    """

    meta = Meta(
        name="pian",
        summary="PIA with the initial prediction normalised",
        paper="arXiv:2305.18355",
        citation="Kong et al., ICLR 2024, Eq. 10",
        licence="none stated",
        access=Access.NOISE,
        equation="s = -Σ|n - e(a_t x_0 + b_t n, t, c)|^p, n = κ ε_0 / mean|ε_0|, ε_0 = e(x_0, 0, c)",
        faults=(
            "The paper prints kappa = sqrt(pi/2), its authors' program has sqrt(2/pi); CDI follows the paper.",
            "The Stable Diffusion program has the faults named at `pia`.",
            "CopyMark's PIAN normalises random noise, which does next to nothing: it is a loss.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            t: Timestep of the second query; 200 in pixel space, 500 on latents (App. A.1).
            p: Power of the difference; 4 in the paper, never rooted.
            kappa: `normal` is sqrt(2/pi), as the authors' code has it; `paper` is the printed sqrt(pi/2).
        """

        t: Timestep = by_kind(pixel=200, latent=500)
        p: int = Field(4, ge=1, le=16)
        kappa: Literal["normal", "paper"] = "normal"

    presets = {"paper": {"kappa": "paper"}, "t200": {"t": 200}}

    def queries(self) -> int:
        return 2

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        t = self.params.t
        clean = target.denoiser(batch.x0, 0, batch.condition)
        clean = clean * (KAPPA[self.params.kappa] / power_mean(clean, 1))[:, None, None, None]
        again = target.denoiser(target.schedule.noised(batch.x0, clean, t), t, batch.condition)
        return {"distance": power_sum(clean - again, self.params.p)}

    def score(self, measured: Measured, calibration: Measured | None) -> NDArray[np.float64]:
        return -measured["distance"]


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [PIAN]
