"""PFAMI: probabilistic fluctuation (Fu et al. 2023, arXiv:2308.12143; defined by the authors' program)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from mia_bench import Access, Attack, Capability, Measured, Meta, Scores, Timestep, by_kind, hookimpl, scoring
from mia_bench.diffusion.reduce import power_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target

Strength = Annotated[float, Field(gt=0, le=1)]
STRENGTHS = tuple(float(s) for s in np.linspace(0.95, 0.7, 10))


class PFAMI(Attack):
    """How much the loss rises when the image is cropped a little: members sit at a sharper optimum.

    With L_t(x) the loss at one noise draw, the score is the mean over t of r = (L_t(crop) - L_t(x)) / L_t(x). As in
    the authors' program every view and timestep has noise of its own. Calibrated, r of a reference model trained on
    other data is subtracted: it is asked with the same inputs and the same caption.
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
            strengths: Shares of the side that crops keep, averaged over; 0.811 in pixel space (index 5 of ten from
                0.95 to 0.70), 0.825 on latents (CLiD's comparison).
            noise: `fresh` for each timestep, or one draw `shared` by all timesteps of a view.
            paired: Whether the crop is noised with the original's noise: less variance, another attack.
            eight_bit: Whether crops are rounded to 256 levels, as a resize of an image file does.
            calibrated: Whether the same of a reference model is subtracted; doubles the queries.
            norm: `relative` divides the rise by the original's loss; `difference` does not.
        """

        t: tuple[Timestep, ...] = by_kind(pixel=tuple(range(0, 500, 50)), latent=tuple(range(1, 500, 50)), min_length=1)
        strengths: tuple[Strength, ...] = by_kind(pixel=(STRENGTHS[5],), latent=(0.825,), min_length=1)
        noise: Literal["fresh", "shared"] = "fresh"
        paired: bool = False
        eight_bit: bool = False
        calibrated: bool = False
        norm: Literal["relative", "difference"] = scoring("relative")

    presets = {
        "difference": {"norm": "difference"},
        "paired-noise": {"paired": True},
        "calibrated": {"calibrated": True},
        "clid": {"noise": "shared", "eight_bit": True, "norm": "difference", "strengths": (0.825,)},
        # Its 1e-6 beside a sum over all elements is below rounding, and its sum over t ranks as our mean.
        "copymark": {"t": tuple(range(50, 501, 50)), "strengths": STRENGTHS},
    }

    def needs(self) -> frozenset[Capability]:
        return self.meta.needs | ({Capability.REFERENCE} if self.params.calibrated else frozenset())

    def queries(self) -> int:
        return len(self.params.t) * (1 + len(self.params.strengths)) * (2 if self.params.calibrated else 1)

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        terms = losses(batch, target, target, self.params)
        if self.params.calibrated:
            assert target.reference, "needs() asks for it"
            others = losses(batch, target, target.reference, self.params)
            terms |= {f"reference_{name}": values for name, values in others.items()}
        return terms

    def score(self, measured: Measured, calibration: Measured | None) -> Scores | NDArray[np.float64]:
        mean: NDArray[np.float64] = self.rises(measured).mean(axis=(1, 2))
        return mean

    def rises(self, measured: Measured) -> NDArray[np.float64]:
        """r, less that of the reference if calibrated: `(N, T, strengths)`."""
        rise = self._rise(measured["original"], measured["crops"])
        if self.params.calibrated:
            rise = rise - self._rise(measured["reference_original"], measured["reference_crops"])
        return np.nan_to_num(rise)

    def _rise(self, original: NDArray[np.float64], crops: NDArray[np.float64]) -> NDArray[np.float64]:
        rise = crops - original[:, :, None]
        return rise / original[:, :, None] if self.params.norm == "relative" else rise


def losses(batch: Batch, target: Target, asked: Target, params: PFAMI.Params) -> dict[str, Any]:
    """L_t under the model `asked` of the image, `(B, T)`, and of each crop, `(B, T, strengths)`."""
    import torch

    from mia_bench.diffusion.views import centre_crop

    t, given = params.t, asked.condition([c or "" for c in batch.captions])

    def loss(x: torch.Tensor, quantity: str) -> torch.Tensor:
        eps = batch.eps(t if params.noise == "fresh" else t[0], quantity=quantity)
        predicted = asked.denoiser(target.schedule.noised(x, eps, t), t, given)
        return power_mean(predicted - (eps if eps.ndim == predicted.ndim else eps[:, None]))

    crops = []
    for strength in params.strengths:
        view = f"crop{strength:.4g}" + ("-8bit" if params.eight_bit else "")
        x = batch.encode(centre_crop(batch.pixels, strength, eight_bit=params.eight_bit), view)
        crops.append(loss(x, "eps" if params.paired else f"eps:{view}"))
    return {"original": loss(batch.x0, "eps"), "crops": torch.stack(crops, dim=2)}


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [PFAMI]
