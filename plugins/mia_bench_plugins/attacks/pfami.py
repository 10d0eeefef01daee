"""PFAMI: probabilistic fluctuation (Fu et al. 2023, arXiv:2308.12143; defined by the authors' program)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from mia_bench import Access, Attack, Measured, Meta, Timestep, by_kind, hookimpl, scoring
from mia_bench.diffusion.reduce import power_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target

Strength = Annotated[float, Field(gt=0, le=1)]


class PFAMI(Attack):
    """How much the loss rises when the image is cropped a little: members sit at a sharper optimum.

    With L_t(x) the loss at one noise draw, the score is the mean over t of (L_t(crop) - L_t(x)) / L_t(x). As in the
    authors' program every view and timestep has noise of its own.
    """

    meta = Meta(
        name="pfami",
        summary="relative rise of the denoising error when the image is cropped",
        paper="arXiv:2308.12143",
        citation="Fu et al., 2023; program MIA-Gen",
        licence="none stated",
        access=Access.LOSS,
        orientation="higher is member",
        equation="s = mean_t,λ [(L_t(crop_λ x) - L_t(x)) / L_t(x)], L_t(x) = mean (e(x_t, t, c) - ε)²",
        faults=(
            "The program measures ten strengths and reads one of them, so it runs 110 queries where 20 count.",
            "Its published settings subtract a reference model, where the abstract promises an attack without one.",
            "Crops skip the first resize, so they are right only for files of 64 pixels a side.",
            "Its ROC takes non-members for the positive class and the nearest point of the curve.",
            "CLiD's comparison leaves out the division and shares one noise between timesteps; CopyMark's starts its "
            "timesteps 50 late.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            t: Timesteps.
            strength: Share of the side that a crop keeps; 0.811 in pixel space (index 5 of ten from 0.95 to 0.70),
                0.825 on latents (CLiD's comparison).
            noise: `fresh` for each timestep, or one draw `shared` by all timesteps of a view.
            paired: Whether the crop is noised with the original's noise: less variance, another attack.
            eight_bit: Whether crops are rounded to 256 levels, as a resize of an image file does.
            norm: `relative` divides the rise by the original's loss; `difference` does not.
        """

        t: tuple[Timestep, ...] = by_kind(pixel=tuple(range(0, 500, 50)), latent=tuple(range(1, 500, 50)), min_length=1)
        strength: Strength = by_kind(pixel=float(np.linspace(0.95, 0.7, 10)[5]), latent=0.825)
        noise: Literal["fresh", "shared"] = "fresh"
        paired: bool = False
        eight_bit: bool = False
        norm: Literal["relative", "difference"] = scoring("relative")

    presets = {
        "difference": {"norm": "difference"},
        "paired-noise": {"paired": True},
        "clid": {"noise": "shared", "eight_bit": True, "norm": "difference", "strength": 0.825},
    }

    def queries(self) -> int:
        return 2 * len(self.params.t)

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        return {
            "original": losses(batch, target, self.params, None),
            "crop": losses(batch, target, self.params, self.params.strength),
        }

    def score(self, measured: Measured, calibration: Measured | None) -> NDArray[np.float64]:
        original, crop = measured["original"], measured["crop"]  # (N, T)
        if self.params.norm == "difference":
            rise: NDArray[np.float64] = crop.mean(axis=1) - original.mean(axis=1)
            return rise
        relative: NDArray[np.float64] = np.nan_to_num((crop - original) / original).mean(axis=1)
        return relative


def losses(batch: Batch, target: Target, params: PFAMI.Params, strength: float | None) -> Any:
    """L_t of a crop, or of the image itself if no strength is given: `(B, T)`."""
    from mia_bench.diffusion.views import centre_crop

    x, view = batch.x0, ""
    if strength is not None:
        view = f"crop{strength:.4g}" + ("-8bit" if params.eight_bit else "")
        x = batch.encode(centre_crop(batch.pixels, strength, eight_bit=params.eight_bit), view)
    quantity = f"eps:{view}" if view and not params.paired else "eps"
    eps = (
        batch.eps(params.t, quantity=quantity) if params.noise == "fresh" else batch.eps(params.t[0], quantity=quantity)
    )
    predicted = target.denoiser(target.schedule.noised(x, eps, params.t), params.t, batch.condition)
    return power_mean(predicted - (eps if eps.ndim == predicted.ndim else eps[:, None]))


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [PFAMI]
