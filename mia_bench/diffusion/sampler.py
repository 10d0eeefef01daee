"""Deterministic walks along the schedule: DDIM sampling and inversion (Song et al. 2021, arXiv:2010.02502, Eq. 12)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch

from mia_bench.diffusion.denoiser import Condition
from mia_bench.diffusion.keyed import plain

if TYPE_CHECKING:
    from mia_bench.target import Target


def levels(target: Target, steps: int) -> list[int]:
    """Timesteps of a walk of N steps, `N + 1` of them, ascending, from 0 for the clean image.

    "Leading" spacing as in diffusers: t_k = offset + (k - 1) (T // N), with the checkpoint's own offset (1 for Stable
    Diffusion). With offset 0 the lowest two are the same: that move stays where it is, and is asked all the same.

    Raises:
        ValueError: The schedule has too few timesteps for so many steps.
    """
    count, offset = len(target.schedule), target.schedule.offset
    stride = count // steps
    if stride < 1 or offset + (steps - 1) * stride >= count:
        raise ValueError(f"{steps} steps from timestep {offset} on a schedule of {count}")
    return [0, *(offset + k * stride for k in range(steps))]


def guided(
    target: Target, x: torch.Tensor, t: int, given: Condition, null: Condition, guidance: float = 1.0
) -> torch.Tensor:
    """e_null + w (e_given - e_null), `(B, C, H, W)`: two queries, or one where w is 0 or 1."""
    if guidance in (0.0, 1.0):
        return target.denoiser(x, t, given if guidance else null)
    both = plain(target.denoiser(x, t, [given, null]))
    return both[:, 1] + guidance * (both[:, 0] - both[:, 1])


def walk(
    target: Target,
    x: torch.Tensor,
    timesteps: Sequence[int],
    given: Condition,
    null: Condition,
    *,
    guidance: float = 1.0,
    label: Literal["source", "destination"] = "source",
) -> Iterator[torch.Tensor]:
    """The states after each move of a deterministic walk.

    Args:
        target: Whose denoiser and schedule.
        x: `(B, C, H, W)` at `timesteps[0]`.
        timesteps: Ascending to invert an image, descending to generate one.
        given: Condition.
        null: Condition of the unguided half.
        guidance: w; 1 is plain conditional, 0 unconditional.
        label: Which end's timestep the network is told: generation tells the source; inversion the source (Eq. 12 as it
            stands) or the destination (the label that generation uses on the way back, and diffusers' choice).

    Yields:
        `(B, C, H, W)` at `timesteps[1]`, `timesteps[2]`, ...
    """
    for t, to in pairwise(timesteps):
        eps = guided(target, x, t if label == "source" else to, given, null, guidance)
        x = target.schedule.jump(x, eps, t, to)
        yield x
