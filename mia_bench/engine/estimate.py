"""What a run would cost, from its plan and a few timed calls of the target's networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mia_bench.attack import Capability

if TYPE_CHECKING:
    import torch

    from mia_bench.diffusion.rows import RowRunner
    from mia_bench.engine.measure import Work
    from mia_bench.target import Target

CALLS = 3  # timed calls of each network, after one that is not


@dataclass(frozen=True)
class Estimate:
    """What is left to measure, and how long that may take.

    Attributes:
        samples: Samples that lack some measurement.
        queries: Queries that their attacks would ask; equal ones run once, so fewer are executed.
        rows: Rows per network call.
        seconds_per_row: By network.
        seconds: Of all queries and of encoding every image; pictures that attacks decode or compare, gradients and the
            fits of classifiers come on top.
    """

    samples: int
    queries: int
    rows: int
    seconds_per_row: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        per_row = self.seconds_per_row
        return self.queries * per_row.get("denoiser", 0.0) + self.samples * per_row.get("vae", 0.0)


def estimate(work: Sequence[Work], target: Target) -> Estimate:
    """Time the networks of an opened target on noise, at the row counts that the run would use.

    Args:
        work: What is not stored yet.
        target: Opened.
    """
    import torch

    rows = target.denoiser.rows.rows
    x = torch.randn(rows * _at_once(target.denoiser.rows), *target.sample_shape, device=target.device)
    found: dict[str, float] = {}
    with torch.inference_mode():
        if Capability.DENOISE in target.capabilities:
            states = target.condition([""] * len(x)).states
            found["denoiser"] = _seconds(
                target.denoiser.rows,
                lambda x, t, *s: target.predict(x, t, **dict(zip(states, s, strict=True))),
                x,
                torch.zeros(len(x), dtype=torch.int64, device=x.device),
                *states.values(),
            )
        if target.meta.kind == "latent":
            pixels = torch.zeros(len(x), 3, target.image_size, target.image_size, device=x.device)
            found["vae"] = _seconds(target.vae_rows, target.posterior, pixels)
    queries = sum(attack.queries * len(group.samples) for group in work for attack in group.attacks)
    samples = {sample.id for group in work for sample in group.samples}
    return Estimate(len(samples), queries, target.denoiser.rows.rows, found)


def _at_once(rows: RowRunner) -> int:
    return rows.pool._max_workers if rows.pool else 1


def _seconds(rows: RowRunner, network: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> float:
    """Wall seconds per row, the best of a few calls."""
    import torch

    def once() -> float:
        began = time.perf_counter()
        rows(network, *inputs)
        if inputs[0].device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    once()
    return min(once() for _ in range(CALLS)) / len(inputs[0])
