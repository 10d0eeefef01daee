"""Per-sample reductions whose result does not depend on the batch they are computed in.

A plain `sum` splits its work by the size of the whole tensor, so its rounding changes with the batch. Adding halves,
again and again, uses only elementwise additions: the same order of additions for each sample, on any device.
Nothing here imports torch, so attack modules may import it at the top.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

DIMS = 3  # reduce over channels, height, width


def total(x: torch.Tensor) -> torch.Tensor:
    """Sum over the last three dimensions: `(..., C, H, W)` -> `(...)`, float32, batch-independent."""
    lead, n = x.shape[:-DIMS], prod(x.shape[-DIMS:])
    size = 1 << (n - 1).bit_length()  # zeros up to a power of two, so that it can be halved to the end
    x = x.reshape(*lead, n).float()
    if size != n:
        padded = x.new_zeros(*lead, size)
        padded[..., :n] = x
        x = padded
    while size > 1:
        size //= 2
        x = x[..., :size] + x[..., size:]
    return x[..., 0]


def mean(x: torch.Tensor) -> torch.Tensor:
    """Mean over the last three dimensions, batch-independent."""
    return total(x) / prod(x.shape[-DIMS:])


def power(x: torch.Tensor, p: int) -> torch.Tensor:
    """`|x|^p` for integer p >= 1 by multiplication: `pow` rounds differently at the end of a vector."""
    x = x.float().abs()
    y = x
    for _ in range(p - 1):
        y = y * x
    return y


def power_sum(x: torch.Tensor, p: int = 2) -> torch.Tensor:
    """`sum |x|^p` over the last three dimensions, never rooted: `(..., C, H, W)` -> `(...)`."""
    return total(power(x, p))


def power_mean(x: torch.Tensor, p: int = 2) -> torch.Tensor:
    """`mean |x|^p` over the last three dimensions, never rooted: `(..., C, H, W)` -> `(...)`."""
    return mean(power(x, p))
