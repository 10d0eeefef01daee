"""Regions of images: which places matter, and hiding them. No result depends on the batch it is computed in."""

from __future__ import annotations

import torch
from torch.nn import functional


def resized(images: torch.Tensor, side: tuple[int, ...]) -> torch.Tensor:
    """Bilinear with half-pixel centres: `(B, C, h, w)` -> `(B, C, *side)`."""
    # One image at a time: larger batches split the work differently and round differently.
    return torch.cat([functional.interpolate(one[None], side, mode="bilinear", align_corners=False) for one in images])


def local_variance(pixels: torch.Tensor, window: int) -> torch.Tensor:
    """Variance of the colours in a square window around each pixel, cut off at the borders.

    Args:
        pixels: float32 `(B, C, H, W)`.
        window: Its side, odd.

    Returns:
        `(B, H, W)`, the channels added.
    """

    def around(one: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(one, window, stride=1, padding=window // 2, count_include_pad=False)

    return torch.stack([(around(one * one) - around(one) ** 2).sum(0) for one in pixels])


def centrality(pixels: torch.Tensor) -> torch.Tensor:
    """Nearness to the image's centre, equal along squares around it: `(B, C, H, W)` -> `(B, H, W)`."""
    rows, columns = ((torch.arange(n, device=pixels.device) - (n - 1) / 2).abs() / n for n in pixels.shape[-2:])
    return -torch.maximum(rows[:, None], columns[None, :]).expand(len(pixels), -1, -1)


def highest(values: torch.Tensor, share: float) -> torch.Tensor:
    """Where the highest values lie: `(B, H, W)` -> bool, the same number of places, `share` of them, in each image.

    Of equal values the first, row by row, count as higher.
    """
    flat = values.flatten(1)
    order = flat.sort(dim=1, descending=True, stable=True).indices
    chosen = order[:, : min(flat.shape[1], max(1, round(share * flat.shape[1])))]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, chosen, True).view(values.shape)


def cells(hidden: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Cells of a coarser grid in which anything is hidden: bool `(B, 1, H, W)` -> bool `(B, 1, h, w)`."""
    return functional.adaptive_max_pool2d(hidden.float(), size) > 0


def cropped(images: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """Each image's smallest rectangle around a region, resized to the image's size.

    Args:
        images: `(B, C, H, W)`.
        region: bool `(B, 1, H, W)`, somewhere true in each image.

    Returns:
        `(B, C, H, W)`.
    """
    crops = []
    touched = [region[:, 0].any(dim).cpu() for dim in (2, 1)]  # one copy for all images
    for image, *sides in zip(images, *touched, strict=True):
        rows, columns = (side.nonzero()[:, 0].tolist() for side in sides)
        box = image[None, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        crops.append(resized(box, image.shape[-2:]))
    return torch.cat(crops)
