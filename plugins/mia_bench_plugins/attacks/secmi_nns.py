"""SecMI_NNs: a classifier of SecMI's error maps (Duan et al. 2023, arXiv:2302.01316, Eq. 16)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from mia_bench import Access, Measured, Meta, Scores, hookimpl, scoring
from mia_bench.diffusion.reduce import power
from mia_bench.fit import TAG, held_out
from mia_bench_plugins.attacks.secmi import SecMI, t_error

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mia_bench.attack import Attack
    from mia_bench.batch import Batch
    from mia_bench.fit import Predict
    from mia_bench.target import Target

BATCH = 128
FOLDS = 2  # a fold is a training: three in all, as much work as two on the whole calibration set


class SecMINNs(SecMI):
    """ResNet-18 on the map |r - x_t| of SecMI's error, instead of its sum.

    The network is made for small images (3x3 stem, no max-pooling, mean over all positions, one output) and takes the
    target's latent channels. Its raw output is fitted to 1 for members and 0 for others by squared error: SGD, rate
    0.001, momentum 0.9, weight decay 0.0005, steps of at most 128, 15 epochs, last epoch. It learns from the
    calibration set, whose own samples are scored by two networks, each fitted on the other half. On the CPU that costs
    about 11 ms a calibration sample and epoch for 4x16x16 maps, 16 times that for 4x64x64.

    Maps are divided by their root mean square over the fitted rows, where the program takes them as they are: on
    latents they are so small that batch normalisation does not find their scale in the few steps that a small
    calibration set allows. The paper fits a fifth of CIFAR; a few hundred maps are learned by heart.
    """

    meta = Meta(
        name="secmi-nns",
        summary="classifier of the error map of one deterministic step on and back",
        paper="arXiv:2302.01316",
        citation="Duan et al., ICML 2023, Eq. 16",
        licence="MIT",
        access=Access.NOISE,
        calibration="required",
        orientation="higher is member",
        equation="s = f(|r - x_t|), f = argmin Σ (f(|r - x_t|) - m)², m = 1 for members, else 0",
        faults=(
            "Eq. 16's inequality points the wrong way for a confidence of membership.",
            "The program means to keep the network that is best on the test part; the record is never updated, so it "
            "keeps the last.",
            "It trains on the first fifth of members and hold-outs in file order, not on a random fifth.",
            "The paper has no such attack on latents: four input channels are our extension.",
        ),
    )

    class Params(SecMI.Params):
        """Parameters.

        Attributes:
            p: Power of the error in the map; 1 in the paper.
            epochs: Passes over the calibration set.
            seed: Of the network's first weights and the order of samples.
        """

        p: int = Field(1, ge=1, le=16)
        epochs: int = scoring(15, ge=1)
        seed: int = scoring(0, ge=0)

    presets = {**SecMI.presets, "quick": {"samples": 75}}

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        return {"map": power(t_error(batch, target, self.params), self.params.p)}  # (B, C, H, W)

    def score(self, measured: Measured, calibration: Measured | None) -> Scores:
        return Scores(held_out(measured["map"], measured, calibration, self.fit, FOLDS, at_once=True), tags=(TAG,))

    def fit(self, maps: NDArray[np.float64], member: NDArray[np.bool_]) -> Predict:
        """The network trained on maps `(n, C, H, W)`."""
        from torch.nn.functional import mse_loss
        from torch.optim import SGD

        from mia_bench.resnet import ResNet, trained

        scale = np.sqrt((maps**2).mean()) or 1.0
        network = trained(
            lambda: ResNet(maps.shape[1], outputs=1),
            maps / scale,
            member[:, None].astype(np.float32),
            loss=mse_loss,
            optimizer=lambda weights: SGD(weights, lr=1e-3, momentum=0.9, weight_decay=5e-4),
            epochs=self.params.epochs,
            batch=BATCH,
            seed=self.params.seed,
        )
        return lambda x: network(x / scale)[:, 0]


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [SecMINNs]
