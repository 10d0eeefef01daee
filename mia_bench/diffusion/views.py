"""Changed versions of images that attacks compare with the original."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from mia_bench.diffusion.keyed import named_picture, picture_name
from mia_bench.diffusion.transfer import to_device


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
    if eight_bit:
        return as_file(window, side)
    # One image at a time: larger batches split the work differently and round differently.
    crops = torch.stack([_resized(one, side) for one in window])
    return named_picture(crops, f"crop{kept}", picture_name(pixels))


def resized(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """Images `(B, 3, H, W)` as `(B, 3, side, side)`; bilinear, over all pixels where they get fewer."""
    return torch.stack([_resized(one, side, antialias=True) for one in pixels])


def luma(pixels: torch.Tensor) -> torch.Tensor:
    """Grey images `(B, 1, H, W)`, weighted as ITU-R BT.601 and grey image files have it."""
    red, green, blue = pixels[:, 0:1], pixels[:, 1:2], pixels[:, 2:3]
    return 0.299 * red + 0.587 * green + 0.114 * blue


def as_file(pixels: torch.Tensor, side: int) -> torch.Tensor:
    """Images as files of `side` px hold them: resized with antialiasing, in 256 levels.

    Args:
        pixels: float32 `(B, 3, H, W)` in [-1, 1].
        side: In pixels.

    Returns:
        float32 `(B, 3, side, side)` in [-1, 1].
    """
    # As Pillow resizes an image of bytes: rounded to 256 levels after each direction. One copy each way for all.
    levels = ((pixels + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    made = [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BILINEAR)) for one in levels]
    files = to_device(torch.from_numpy(np.stack(made)), pixels.device)
    return files.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def _resized(pixels: torch.Tensor, side: int, antialias: bool = False) -> torch.Tensor:
    return functional.interpolate(
        pixels[None], (side, side), mode="bilinear", align_corners=False, antialias=antialias
    )[0]
