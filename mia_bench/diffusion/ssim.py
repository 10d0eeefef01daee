"""Structural similarity of images (Wang, Bovik, Sheikh, Simoncelli 2004, IEEE TIP 13(4), Eq. 13, Section III-C)."""

from __future__ import annotations

import math

import torch

from mia_bench.diffusion.reduce import mean

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def ssim(x: torch.Tensor, y: torch.Tensor, data_range: float = 1.0) -> torch.Tensor:
    """Mean structural similarity, batch-independent to the bit.

    Channels are compared one by one and averaged. Windows lie wholly inside the image; an image smaller than the
    window of 11 pixels gets the largest odd one that fits.

    Args:
        x: `(B, C, H, W)`.
        y: Same shape.
        data_range: Span of the values, L: 1 for [0, 1].

    Returns:
        float32 `(B,)` in [-1, 1]; exactly 1 for equal images.
    """
    x, y = x.float() - data_range / 2, y.float() - data_range / 2  # centred: second moments lose fewer digits
    mx, my, xx, yy, xy = _blurred(torch.stack([x, y, x * x, y * y, x * y]))
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    structure = (2 * (xy - mx * my) + c2) / ((xx - mx * mx) + (yy - my * my) + c2)
    mx, my = mx + data_range / 2, my + data_range / 2
    return mean((2 * mx * my + c1) / (mx * mx + my * my + c1) * structure)


def _blurred(images: torch.Tensor) -> torch.Tensor:
    """Gaussian-weighted local means `(..., H - n + 1, W - n + 1)`, from elementwise steps only."""
    size = min(WINDOW, *(side - (side + 1) % 2 for side in images.shape[-2:]))
    weights = [math.exp(-(((i - size // 2) / SIGMA) ** 2) / 2) for i in range(size)]
    for dim in (-2, -1):
        valid, moved = images.shape[dim] - size + 1, images.new_zeros(())
        for i, weight in enumerate(weights):
            moved = moved + weight / sum(weights) * images.narrow(dim, i, valid)
        images = moved
    return images
