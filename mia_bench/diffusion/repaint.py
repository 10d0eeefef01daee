"""Generating what is missing of an image so that it fits what is known (Lugmayr et al. 2022, arXiv:2201.09865).

After every step what is known is put back, noised to where the step ended (Eq. 8); what was generated sees it in the
next step only. Noising a state again and denoising it once more (Section 4.2) gives the two time to agree. Random steps
are DDPM's (Ho et al. 2020, arXiv:2006.11239, Eq. 2 and 7), between any two levels.
"""

from __future__ import annotations

import math
from itertools import count, pairwise
from typing import TYPE_CHECKING

import torch

from mia_bench.diffusion.denoiser import Condition
from mia_bench.diffusion.keyed import Keyed, combine, plain
from mia_bench.diffusion.sampler import guided, levels, walk

if TYPE_CHECKING:
    from mia_bench.batch import Batch
    from mia_bench.diffusion.schedule import Schedule


def restored(
    batch: Batch,
    known: Keyed,
    missing: torch.Tensor,
    given: Condition,
    *,
    steps: int = 50,
    guidance: float = 1.0,
    jump: int = 10,
    resamples: int = 1,
    draw: int = 0,
) -> torch.Tensor:
    """What is known, to the bit, and what the batch's target makes of the rest from noise.

    Args:
        batch: Whose samples' noise.
        known: Clean `(B, C, H, W)`, not read where it is missing; what is missing belongs to its name.
        missing: bool `(B, 1, H, W)`.
        given: Condition.
        steps: Of the whole way from noise.
        guidance: w; 1 is plain conditional, 0 unconditional.
        jump: Steps of a stretch that is walked again.
        resamples: How often each is walked, in random steps; 1 is deterministic DDIM.
        draw: Number of the noise.

    Returns:
        `(B, C, H, W)`.
    """
    target, grid = batch.target, levels(batch.target, steps)
    null = batch.null if target.guided else None

    def put_back(x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return combine(torch.where(missing, plain(x), plain(known)), lambda a, b: f"fit({a},{b})", x, known)

    def noised(x: torch.Tensor, t: int) -> torch.Tensor:
        return put_back(x, target.schedule.noised(known, batch.eps(t, draw, "known"), t))

    x: torch.Tensor = batch.eps(grid[-1], draw, "start")
    if resamples == 1:
        *_, x = walk(target, x, grid[::-1], given, null, guidance=guidance, between=noised)
        return put_back(x, known)
    numbers = count()

    def fresh() -> torch.Tensor:
        """Noise of its own for every move; thousands of them, which nobody else asks for, are not remembered."""
        return batch.draw(f"resampled:{draw}", target.sample_shape, next(numbers))

    for level, following in pairwise(jumps(steps, jump, resamples)):
        t, to = grid[level], grid[following]
        if following > level:
            x = renoised(target.schedule, x, fresh(), t, to)
            continue
        eps = guided(target, x, t, given, null, guidance)
        if following:
            x = ancestral(target.schedule, x, eps, fresh(), t, to)
            x = put_back(x, target.schedule.noised(known, fresh(), to))
        else:  # the last step adds no noise
            x = put_back(target.schedule.jump(x, eps, t, to), known)
    return x


def jumps(steps: int, length: int, resamples: int) -> list[int]:
    """Levels in the order they are visited, from `steps` (noise) to 0 (the image).

    Down one by one; at every `length`-th level, from 1 on, back up by `length` and down again, so that each such
    stretch is walked `resamples` times. Levels above the last whole stretch are walked once.
    """
    visited = [steps]
    for level in range(steps - 1, -1, -1):
        visited.append(level)
        if level % length == 1 % length and 1 <= level <= steps - length:
            stretch = range(level, level + length + 1)
            visited += [*stretch[1:], *stretch[-2::-1]] * (resamples - 1)
    return visited


def ancestral(
    schedule: Schedule, x: torch.Tensor, eps: torch.Tensor, noise: torch.Tensor, t: int, to: int
) -> torch.Tensor:
    """A random step down from timestep `t` to `to`, with the posterior's variance."""
    (a, b), (a_to, b_to) = _levels(schedule, t), _levels(schedule, to)
    spread = _gained(schedule, to, t) * b_to / b
    x0 = (plain(x) - b * plain(eps)) / a
    return a_to * x0 + math.sqrt(b_to**2 - spread**2) * plain(eps) + spread * plain(noise)


def renoised(schedule: Schedule, x: torch.Tensor, noise: torch.Tensor, t: int, to: int) -> torch.Tensor:
    """A random step up from timestep `t` to `to`: q(x_to | x_t)."""
    (a, _), (a_to, _) = _levels(schedule, t), _levels(schedule, to)
    return a_to / a * plain(x) + _gained(schedule, t, to) * plain(noise)


def _gained(schedule: Schedule, t: int, to: int) -> float:
    """Standard deviation of the noise that a step up from t to `to` adds."""
    (a, b), (a_to, b_to) = _levels(schedule, t), _levels(schedule, to)
    return math.sqrt(max(b_to**2 - (a_to / a * b) ** 2, 0.0))


def _levels(schedule: Schedule, t: int) -> tuple[float, float]:
    return float(schedule.signal[t]), float(schedule.noise[t])
