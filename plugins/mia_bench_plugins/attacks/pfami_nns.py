"""PFAMI_NNs: a classifier of fluctuation maps (Fu et al. 2023, arXiv:2308.12143; defined by the authors' program)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from mia_bench import Access, Measured, Meta, Scores, hookimpl, scoring
from mia_bench.fit import TAG, held_out
from mia_bench_plugins.attacks.pfami import PFAMI, STRENGTHS, Strength

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mia_bench.attack import Attack
    from mia_bench.fit import Predict

RATE = 0.01
STAGES = 2  # of ResNet-18's four
FOLDS = 2  # a fold is a training: three in all, as much work as two on the whole calibration set


class PFAMINNs(PFAMI):
    """A small residual network on the map of rises r, ten timesteps by ten crops, instead of their mean.

    ResNet-18 for small images, cut after its second stage: one channel in, mean over all positions, two outputs for
    member (0) and non-member (1). Cross-entropy, Adam, rate 0.01, all rows at once, 150 epochs, last epoch. It learns
    from the calibration set, the authors' from a shadow model; calibration samples are scored by two networks, each
    fitted on the other half. On the CPU that costs about 2 ms a calibration sample and epoch.

    Of its 110 queries all are shared with `pfami` in pixel space; on latents the 10 of the uncropped image are.
    """

    meta = Meta(
        name="pfami-nns",
        summary="classifier of the rises of the denoising error over timesteps and crops",
        paper="arXiv:2308.12143",
        citation="Fu et al., 2023; program MIA-Gen",
        licence="none stated",
        access=Access.LOSS,
        calibration="required",
        orientation="lower is member",
        equation="s = -f₁(r), r_tλ = (L_t(crop_λ x) - L_t(x)) / L_t(x), f = argmin cross-entropy, members class 0",
        faults=(
            "The program pools 4x4 of the 5x5 features, leaving out a row and a column; here all are pooled.",
            "It ranks by the second output alone, although only the difference of the two is trained.",
            "A network that it loads instead of training predicts with the statistics of the evaluated samples.",
            "Its epochs are 1000, 150 or 110, depending on where one looks; 150 is the last setting for diffusion.",
        ),
    )

    class Params(PFAMI.Params):
        """Parameters.

        Attributes:
            strengths: Shares of the side that crops keep.
            epochs: Passes over the calibration set.
            seed: Of the network's first weights.
            rank: By the non-member `output` alone, as the program does, or by the outputs' `difference`.
        """

        strengths: tuple[Strength, ...] = Field(STRENGTHS, min_length=1)
        epochs: int = scoring(150, ge=1)
        seed: int = scoring(0, ge=0)
        rank: Literal["output", "difference"] = scoring("output")

    presets = {
        "calibrated": {"calibrated": True},
        "logit-difference": {"rank": "difference"},
        "quick": {"samples": 75, "t": (0, 100, 200, 300, 400)},
    }

    def score(self, measured: Measured, calibration: Measured | None) -> Scores:
        maps = self.rises(measured)[:, None]  # (N, 1, T, strengths)
        return Scores(held_out(maps, measured, calibration, self.fit, FOLDS, at_once=True), tags=(TAG,))

    def fit(self, maps: NDArray[np.float64], member: NDArray[np.bool_]) -> Predict:
        """The network trained on maps `(n, 1, T, strengths)`."""
        from torch.nn.functional import cross_entropy
        from torch.optim import Adam

        from mia_bench.resnet import ResNet, trained

        network = trained(
            lambda: ResNet(1, outputs=2, stages=STAGES),
            maps,
            (~member).astype(np.int64),
            loss=cross_entropy,
            optimizer=lambda weights: Adam(weights, lr=RATE),
            epochs=self.params.epochs,
            seed=self.params.seed,
        )
        if self.params.rank == "output":
            return lambda x: -network(x)[:, 1]
        return lambda x: -np.diff(network(x), axis=1)[:, 0]


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [PFAMINNs]
