"""Changed versions of images that attacks compare with the original."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import functional


def centre_crop(pixels: torch.Tensor, strength: float, *, eight_bit: bool = False) -> torch.Tensor:
    """The centre, `int(side * strength)` pixels a side, resized to the original size.

    Bilinear with half-pixel centres; where the margin is odd, the offset is rounded half to even.

    Args:
        pixels: float32 `(B, 3, H, H)` in [-1, 1].
        strength: Share of the side that is kept, in (0, 1].
        eight_bit: Resize as an image file is, in 256 levels.

    Returns:
        float32 `(B, 3, H, H)`.
    """
    side = pixels.shape[-1]
    kept = int(side * strength)
    start = round((side - kept) / 2)
    window = pixels[..., start : start + kept, start : start + kept]
    # One image at a time: larger batches split the work differently and round differently.
    resize = _resized_file if eight_bit else _resized
    return torch.stack([resize(one, side) for one in window])


def _resized(pixels: torch.Tensor, side: int) -> torch.Tensor:
    return functional.interpolate(pixels[None], (side, side), mode="bilinear", align_corners=False, antialias=False)[0]


def _resized_file(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """As Pillow resizes an image of bytes: rounded to 256 levels after each direction."""
    levels = ((pixels + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    resized = np.array(Image.fromarray(levels).resize((side, side), Image.Resampling.BILINEAR))
    return torch.from_numpy(resized).permute(2, 0, 1).to(pixels.device).float() / 127.5 - 1
