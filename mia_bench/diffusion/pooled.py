"""Several text inputs in one tensor: what attacks share, draw noise for and optimise is always one `(R, L, D)`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional


def packed(states: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
    """A pooled embedding `(R, P)` as further rows, padded with zeros, of states `(R, L, D)`."""
    width = states.shape[-1]
    rows = functional.pad(pooled, (0, -pooled.shape[-1] % width)).reshape(len(pooled), -1, width)
    return torch.cat([states, rows.to(states.dtype)], dim=1)


def unpacked(both: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States `(R, L, D)` and the pooled embedding `(R, width)` of what `packed` made."""
    rows = -(-width // both.shape[-1])
    return both[:, :-rows], both[:, -rows:].flatten(1)[:, :width]


def stacked(ids: Sequence[torch.Tensor]) -> torch.Tensor:
    """Token ids `(N, L_i)` of several tokenizers as `(N, K, L)`, filled up with -1."""
    longest = max(i.shape[1] for i in ids)
    return torch.stack([functional.pad(i, (0, longest - i.shape[1]), value=-1) for i in ids], dim=1)


def unstacked(tokens: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
    """The ids `(R, L_i)` of each tokenizer."""
    return [tokens[:, k, :length] for k, length in enumerate(lengths)]
