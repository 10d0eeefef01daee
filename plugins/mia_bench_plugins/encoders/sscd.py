"""SSCD: a descriptor that finds copies (Pizzi et al., CVPR 2022, arXiv:2202.10261)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench import hookimpl
from mia_bench.encoder import Encoder, EncoderMeta, Offer
from mia_bench.errors import brief
from mia_bench_plugins.encoders.local import LocalEncoder, fitted

if TYPE_CHECKING:
    import torch

    from mia_bench.target import Target

URL = "https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchscript.pt"


class Sscd(LocalEncoder):
    """The authors' TorchScript file, asked as the studies of memorisation ask it.

    TorchScript is a program: it is run, with what torch's operators can do, so name a file that you trust.

    Short side to 256 px, centre of 224 px, values in [-1, 1], as Wen et al. (ICLR 2024) do; its authors' own advice is
    288 px and ImageNet's mean and deviation.
    """

    meta = EncoderMeta(
        name="sscd",
        summary="SSCD disc-mixup, ResNet-50",
        offers=frozenset({Offer.EMBED, Offer.DISTANCE}),
        source=URL,
        fetch=f"curl -O {URL}, then name it: sscd:{URL.rsplit('/', 1)[1]}",
        argument="FILE",
        licence="MIT",
        citation="Pizzi et al., CVPR 2022",
    )

    jit: Any

    def files(self) -> Mapping[str, Path]:
        return {"weights": self.given()}

    def load(self, target: Target) -> None:
        import torch

        path, self.jit = self.files()["weights"], torch.jit
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript is deprecated
                self.net = self.jit.load(str(path), map_location=target.device).eval()
        except (RuntimeError, ValueError) as error:
            raise self.missing(f"{path} is no TorchScript: {brief(error)}") from error

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        # Unoptimised: an optimised script is rewritten after its first calls, and rounds differently from then on.
        with self.jit.optimized_execution(False):
            features: torch.Tensor = self.net(fitted(images, 256, 224, [0.5] * 3, [0.5] * 3, "bilinear"))
        return features


@hookimpl
def mia_bench_encoders() -> list[type[Encoder]]:
    return [Sscd]
