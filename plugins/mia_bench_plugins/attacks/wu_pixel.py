"""Wu et al., by the pixels of the image generated from the caption (2022, arXiv:2210.00968)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from mia_bench import Attack, Measured, hookimpl, scoring
from mia_bench_plugins.attacks.wu import Wu, about

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target

SMALL = 64  # px: up to here the network for small images
QUICK = {"samples": 75, "steps": 25, "side": 16, "stages": 1, "epochs": 8, "rate": 1e-3, "rows": 32}


class WuPixel(Wu):
    """Of pixels: ResNet-18 trained from scratch, the one for small images up to 64 px a side.

    Images are brought to the classifier's side as files are, in 256 levels and with antialiasing, and kept like that.
    Calibration samples are scored by two networks, each fitted on the other half. At 224 px that takes about a fifth
    of a second a calibration sample and epoch on one core of a CPU.
    """

    class Params(Wu.Params):
        """Parameters.

        Attributes:
            side: Of the classifier's images, px; at most the target's.
            epochs: Passes of the classifier over the calibration set; the last is kept.
            stages: The network is cut after so many of its four stages.
        """

        side: int = Field(224, ge=8)
        epochs: int = scoring(20, ge=1)
        stages: int = scoring(4, ge=1, le=4)

    presets = {"captioned": {"captions": "generated"}, "quick": QUICK}
    folds = 2  # a fold is a training: three in all, as much work as two on the whole calibration set

    def features(self, measured: Measured) -> NDArray[np.float64]:
        return measured["pixels"]

    def network(self, features: NDArray[np.float64]) -> torch.nn.Module:
        from mia_bench.resnet import ResNet

        return ResNet(3, outputs=1, stages=self.params.stages, small=features.shape[-1] <= SMALL)

    def seen(self, pixels: torch.Tensor) -> torch.Tensor:
        """Images at the classifier's side, `(B, 3, side, side)` in [-1, 1]."""
        from mia_bench.diffusion.views import as_file

        return as_file(pixels, min(self.params.side, pixels.shape[-1]))


class WuIP(WuPixel):
    """Generation quality, in pixels: the classifier sees x'."""

    meta = about("wu-ip", "classifier of an image generated from the caption", "P(member | x'), x' = T2I(caption)")

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        return {"pixels": self.seen(self.generated(batch, target)[1])}


class WuIIP(WuPixel):
    """Reconstruction error, in pixels: the classifier sees |x - x'|."""

    meta = about(
        "wu-iip",
        "classifier of the differences between the image and one generated from its caption",
        "P(member | |x - x'|), x' = T2I(caption)",
    )

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        return {"pixels": (self.seen(batch.pixels) - self.seen(self.generated(batch, target)[1])).abs()}


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [WuIP, WuIIP]
