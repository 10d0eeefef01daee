"""How much of a sampler's way a strength stands for; imports nothing, so that attacks can state their price with it."""

from __future__ import annotations


def steps_at(steps: int, strength: float = 1.0) -> int:
    """Steps of a generation from an image noised to a strength, where the whole way from noise has `steps`.

    As many as diffusers runs, `int(N s)`, but at least one, and free of the rounding that makes `int(0.29 * 100)` 28.
    """
    return min(steps, max(1, int(steps * strength + 1e-6)))
