"""What a run would cost, from its plan and a few timed calls of the target's networks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
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
        samples: Samples that lack some measurement; one with several captions is several.
        queries: Queries that their attacks would ask, images of a target without a denoiser; equal ones run once, so
            fewer are executed.
        rows: Rows per network call.
        filled: Rows that these queries take at most, with calls filled up.
        seconds_per_row: By network.
        seconds: Of all queries and of encoding every image; pictures that attacks decode or compare, gradients and the
            fits of classifiers come on top. None without a denoiser: nothing is asked of a service to time it.
    """

    samples: int
    queries: int
    rows: int
    filled: int = 0
    seconds_per_row: dict[str, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        per_row = self.seconds_per_row
        if self.queries and "denoiser" not in per_row:
            return None
        return self.filled * per_row.get("denoiser", 0.0) + self.samples * per_row.get("vae", 0.0)


def estimate(work: Sequence[Work], target: Target, size: int = 1) -> Estimate:
    """Time the networks of an opened target on noise, at the row counts that the run would use.

    Args:
        work: What is not stored yet.
        target: Opened.
        size: Samples per batch.
    """
    import torch

    unit = target.denoiser.rows.rows * _at_once(target.denoiser.rows)  # what runs at the price of one row
    found: dict[str, float] = {}
    with torch.inference_mode():
        if Capability.DENOISE in target.capabilities:
            x = torch.randn(unit, *target.sample_shape, device=target.device)
            states = target.condition([""] * unit).states
            found["denoiser"] = _seconds(
                target.denoiser.rows,
                lambda x, t, *s: target.predict(x, t, **dict(zip(states, s, strict=True))),
                x,
                torch.zeros(unit, dtype=torch.int64, device=x.device),
                *states.values(),
            )
        if target.meta.kind == "latent":
            pixels = torch.zeros(unit, 3, target.image_size, target.image_size, device=target.device)
            found["vae"] = _seconds(target.vae_rows, target.posterior, pixels)
    asked = [(len(group.samples), sum(attack.queries for attack in group.attacks)) for group in work]
    return Estimate(
        samples=len({(sample.id, sample.digest) for group in work for sample in group.samples}),
        queries=sum(count * queries for count, queries in asked),
        rows=target.denoiser.rows.rows,
        filled=sum(_filled(count, size, unit) * queries for count, queries in asked),
        seconds_per_row=found,
    )


def _filled(samples: int, size: int, unit: int) -> int:
    """Rows of one query of each sample, batch by batch, each filled up to whole units."""
    whole, rest = divmod(samples, size)
    return unit * (whole * ceil(size / unit) + ceil(rest / unit))


def _at_once(rows: RowRunner) -> int:
    return rows.pool._max_workers if rows.pool else 1


def _seconds(rows: RowRunner, network: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> float:
    """Wall seconds per row, the best of a few calls."""
    import torch

    def once() -> float:
        began = time.perf_counter()
        rows(network, *inputs)
        if inputs[0].device.type == "cuda":
            torch.cuda.synchronize(inputs[0].device)
        return time.perf_counter() - began

    once()
    return min(once() for _ in range(CALLS)) / len(inputs[0])
