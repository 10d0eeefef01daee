"""Prompts found by descent, as text states: for attacks that ask what a prompt can do to an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from mia_bench.diffusion.denoiser import Condition
from mia_bench.diffusion.keyed import plain
from mia_bench.diffusion.reduce import power_mean

if TYPE_CHECKING:
    from mia_bench.target import Target

TOLERANCE, PER_LEVEL = 1e-5, 2e-5  # what the mean square may be at level k: TOLERANCE + k PER_LEVEL


def prompt_of(states: torch.Tensor, like: Condition) -> Condition:
    """Text states `(B, L, D)` as a condition in the precision of another; without a name, nobody else asks for it."""
    return Condition(None, {name: states.to(given.dtype) for name, given in like.states.items()})


def kept_on_the_way(
    target: Target,
    states: torch.Tensor,
    way: Sequence[torch.Tensor],
    timesteps: Sequence[int],
    null: Condition,
    *,
    until: int,
    guidance: float,
    steps: int,
    lr: float,
    loudness: float = 0.0,
) -> torch.Tensor:
    """Change a prompt until guided steps back along an inversion stay on it.

    At each level k from the last down to `until + 1`, Adam minimises the mean square of
    M(y, k, k - 1, e_null + w (e_p - e_null)) - z_{k-1} over p, M being the DDIM move; then y, z_K at first, takes that
    step with the p found, which the next level goes on from. Null-text inversion (Mokady et al. 2023,
    arXiv:2211.09794, Algorithm 1) with the other half of the guidance. Asks `steps + 2` queries a level at most.

    Args:
        target: Whose denoiser and schedule.
        states: Prompts to start from, float32 `(B, L, D)`.
        way: z_0 ... z_K, each `(B, C, H, W)`.
        timesteps: Their timesteps.
        null: The empty prompt.
        until: Level above which the prompt is changed.
        guidance: w.
        steps: Most steps of the descent at one level.
        lr: Its learning rate.
        loudness: Weight of the mean square of e_p - e_null beside it.

    Returns:
        float32 `(B, L, D)`.
    """
    y = way[-1]

    def level(k: int) -> tuple[torch.Tensor, torch.Tensor]:
        t, to, aim = timesteps[k], timesteps[k - 1], plain(way[k - 1])
        e_null = plain(target.denoiser(y, t, null))

        def moved(difference: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            return target.schedule.jump(y[rows], e_null[rows] + guidance * difference, t, to)

        def objective(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
            difference = target.denoiser(y[rows], t, prompt_of(values, null), grad=True) - e_null[rows]
            return power_mean(moved(difference, rows) - aim[rows]) + loudness * power_mean(difference)

        limit = TOLERANCE + PER_LEVEL * k
        found = target.denoiser.descend(states, objective, steps=steps, lr=lr, tolerance=limit)
        everyone = torch.arange(len(y), device=y.device)
        return found, moved(plain(target.denoiser(y, t, prompt_of(found, null))) - e_null, everyone)

    for k in range(len(way) - 1, until, -1):
        states, y = level(k)
    return states
