"""Networks of the embedded encoders: a perceptual and an image-text similarity, trained on other icon styles only."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mia_bench.images import to_pixels
from mia_bench_plugins.encoders import ICONS as DATA

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

SIDE = 32  # px of the icons they were trained on
CHANNELS, STRIDES = (24, 48, 72, 96), (1, 2, 2, 2)
TEXT_WIDTH = 64  # of the embedded text encoder


class IconNet(nn.Module):
    """Four blocks of convolution, batch norm and ReLU, then a linear head on the mean of the last; 0.12 M parameters.

    Args:
        outputs: Width of the head.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        widths = zip((3, *CHANNELS), CHANNELS, STRIDES, strict=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            for before, after, stride in widths
        )
        self.head = nn.Linear(CHANNELS[-1], outputs)

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Maps after each block for `pixels` (B, 3, H, W) in [-1, 1]."""
        maps = [pixels]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps[1:]

    def forward(self, pixels: Tensor) -> Tensor:
        """`(B, outputs)`, unit length."""
        head: Tensor = self.head(self.features(pixels)[-1].mean((2, 3)))
        return functional.normalize(head, dim=1)


def perceptual_distance(net: IconNet, left: Tensor, right: Tensor) -> Tensor:
    """Distance of two batches of images (B, 3, H, W) in [-1, 1], shape (B,), at least 0; 0 for equal images.

    Maps of each block are normalised along channels, then squared differences are summed over channels and averaged
    over places, and the blocks added: the distance of LPIPS (Zhang et al., CVPR 2018, Eq. 1) with unit weights.
    """
    total = left.new_zeros(len(left))
    for a, b in zip(net.features(left), net.features(right), strict=True):
        total = total + (functional.normalize(a, dim=1) - functional.normalize(b, dim=1)).square().sum(1).mean((1, 2))
    return total


@cache
def image_tower() -> IconNet:
    """The image half of the image-text similarity."""
    return icon_net("image_text")[0]


@torch.no_grad()
def embedding(image: Image) -> NDArray[np.float32]:
    """Of one image of any size, float32 `(64,)`, unit length; alone, so that no other image decides its rounding."""
    pixels = torch.from_numpy(np.ascontiguousarray(to_pixels(image, SIDE)))
    embedded: NDArray[np.float32] = image_tower()(pixels[None])[0].numpy()
    return embedded


def icon_net(part: str, device: str = "cpu") -> tuple[IconNet, dict[str, Tensor]]:
    """A trained network, and what else its file holds; of `perceptual` or `image_text`."""
    from safetensors.torch import load_file

    weights = {
        k: v.float() if v.is_floating_point() else v for k, v in load_file(DATA / part / "model.safetensors").items()
    }
    others = {name: weights.pop(name) for name in ("text_projection",) if name in weights}
    net = IconNet(len(weights["head.bias"]))
    net.load_state_dict(weights)
    return net.eval().requires_grad_(False).to(device), others


def small(pixels: Tensor) -> Tensor:
    """Images of any size at the side they were trained on."""
    if tuple(pixels.shape[-2:]) == (SIDE, SIDE):
        return pixels
    return functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
