"""The embedded encoders: a perceptual distance and an image-text similarity, trained on other icon styles only."""

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
    total = torch.zeros(len(left))
    for a, b in zip(net.features(left), net.features(right), strict=True):
        total = total + (functional.normalize(a, dim=1) - functional.normalize(b, dim=1)).square().sum(1).mean((1, 2))
    return total


class IconClip:
    """Image-text similarity in the way of CLIP (Radford et al., 2021), with the embedded text encoder."""

    def __init__(self) -> None:
        from safetensors.torch import load_file
        from transformers import CLIPTextModel, CLIPTokenizer

        self.projection = load_file(DATA / "image_text" / "model.safetensors")["text_projection"].float()
        self.image_net = image_tower()
        self.text = CLIPTextModel.from_pretrained(DATA / "text_encoder").float().eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(DATA / "tokenizer")

    @torch.no_grad()
    def similarity(self, pixels: Tensor, captions: list[str]) -> Tensor:
        """Cosine of every image (B, 3, H, W) in [-1, 1] with every caption (C); shape (B, C), in [-1, 1]."""
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        texts = functional.normalize(self.text(tokens).pooler_output @ self.projection.T, dim=1)
        images: Tensor = self.image_net(pixels)
        return images @ texts.T


@cache
def image_tower() -> IconNet:
    """The image half of the image-text similarity."""
    from safetensors.torch import load_file

    weights = load_file(DATA / "image_text" / "model.safetensors")
    return _load(IconNet(len(weights.pop("text_projection"))), weights)


@torch.no_grad()
def embedding(image: Image) -> NDArray[np.float32]:
    """Of one image of any size, float32 `(64,)`, unit length; alone, so that no other image decides its rounding."""
    pixels = torch.from_numpy(np.ascontiguousarray(to_pixels(image, SIDE)))
    embedded: NDArray[np.float32] = image_tower()(pixels[None])[0].numpy()
    return embedded


@cache
def perceptual() -> IconNet:
    """The embedded perceptual encoder."""
    from safetensors.torch import load_file

    weights = load_file(DATA / "perceptual" / "model.safetensors")
    return _load(IconNet(len(weights["head.bias"])), weights)


def _load(net: IconNet, weights: dict[str, Tensor]) -> IconNet:
    net.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    )
    return net.eval().requires_grad_(False)
