"""Deterministic walks along the schedule: DDIM sampling and inversion (Song et al. 2021, arXiv:2010.02502, Eq. 12)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch

from mia_bench.diffusion.denoiser import Condition
from mia_bench.diffusion.keyed import SAMPLE_DIMS, combine, keys_of, plain
from mia_bench.diffusion.strength import steps_at

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


def path(target: Target, steps: int, strength: float = 1.0) -> list[int]:
    """Timesteps of a generation, descending to 0: N steps from noise, or the last share of them from a noised image."""
    return levels(target, steps)[steps_at(steps, strength) :: -1]


def guided(
    target: Target, x: torch.Tensor, t: int, given: Condition, null: Condition | None = None, guidance: float = 1.0
) -> torch.Tensor:
    """e_null + w (e_given - e_null), shaped like `x`: two queries, or one where w is 0 or 1.

    One, e_given, too where the target has no null condition to guide away from; only there may `null` be None, or
    where w is 1.
    """
    if guidance == 1.0 or not target.guided:
        return target.denoiser(x, t, given)
    assert null is not None, "there is a null condition, and a weight for it"
    if guidance == 0.0:
        return target.denoiser(x, t, null)
    return mixed(target.denoiser(x, t, [given, null]), guidance)


def mixed(both: torch.Tensor, guidance: float) -> torch.Tensor:
    """e_null + w (e_given - e_null) of predictions `(B, [n,] 2, C, H, W)`, the given condition's first."""
    e_given, e_null = plain(both).unbind(-1 - SAMPLE_DIMS)
    eps, keys = e_null + guidance * (e_given - e_null), keys_of(both)
    if keys is None:
        return eps
    return combine(eps, lambda given, null: f"guided({given},{null},{guidance})", keys[..., 0], keys[..., 1])


def walk(
    target: Target,
    x: torch.Tensor,
    timesteps: Sequence[int],
    given: Condition,
    null: Condition | None = None,
    *,
    guidance: float = 1.0,
    label: Literal["source", "destination"] = "source",
    between: Callable[[torch.Tensor, int], torch.Tensor] | None = None,
) -> Iterator[torch.Tensor]:
    """The states after each move of a deterministic walk.

    Args:
        target: Whose denoiser and schedule.
        x: `(B, C, H, W)` at `timesteps[0]`, or n of them a sample, `(B, n, C, H, W)`: each step is one grid.
        timesteps: Ascending to invert an image, descending to generate one.
        given: Condition.
        null: Condition of the unguided half; None where there is none.
        guidance: w; 1 is plain conditional, 0 unconditional.
        label: Which end's timestep the network is told: generation tells the source; inversion the source (Eq. 12 as it
            stands) or the destination (the label that generation uses on the way back, and diffusers' choice).
        between: `(x, timestep) -> x`, applied after each move, e.g. to put back what is known.

    Yields:
        Shaped like `x`, at `timesteps[1]`, `timesteps[2]`, ...
    """
    for t, to in pairwise(timesteps):
        eps = guided(target, x, t if label == "source" else to, given, null, guidance)
        x = target.schedule.jump(x, eps, t, to)
        if between:
            x = between(x, to)
        yield x
