"""Loss: the denoising error at one timestep.

Defined by the training objective (Ho et al. 2020, arXiv:2006.11239, Eq. 14); as an attack by Matsumoto et al. 2023
(arXiv:2302.03262) and the naive attack of Kong et al. 2024 (arXiv:2305.18355, App. A.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from mia_bench import Access, Attack, Measured, Meta, Timestep, by_kind, hookimpl
from mia_bench.diffusion.reduce import power_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target


class Loss(Attack):
    """The model predicts the noise on images it was trained on with a smaller error."""

    meta = Meta(
        name="loss",
        summary="denoising error at one timestep",
        paper="arXiv:2302.03262",
        citation="Matsumoto, Miura, Yanai, DLSP 2023; Kong et al., ICLR 2024",
        access=Access.LOSS,
        equation="s = -mean |e(x_t, t, c) - ε|^p, x_t = a_t x_0 + b_t ε, ε ~ N(0, I)",
        faults=(
            "CLiD's `mia_loss_sd.py` raises to the power of a text (`'l2'`) and cannot run as published.",
            "It draws one noise for a whole batch, so that scores depend on the batch, and its timestep is fixed at "
            "450 whatever the option says.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            t: Timestep; 200 in pixel space, 450 on latents.
            repeats: Independent noise draws, averaged.
            p: Power of the error; 2 in all published uses.
        """

        t: Timestep = by_kind(pixel=200, latent=450)
        repeats: int = Field(1, ge=1)
        p: int = Field(2, ge=1, le=16)

    def queries(self) -> int:
        return int(self.params.repeats)

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        t, eps = self.params.t, batch.eps(self.params.t, range(self.params.repeats))  # (B, repeats, C, H, W)
        predicted = target.denoiser(target.schedule.noised(batch.x0, eps, t), t, batch.condition)
        losses = power_mean(predicted - eps, self.params.p)
        return {f"loss{draw}": loss for draw, loss in enumerate(losses.unbind(dim=1))}

    def score(self, measured: Measured, calibration: Measured | None) -> NDArray[np.float64]:
        draws = [measured[f"loss{draw}"] for draw in range(self.params.repeats)]
        return -sum(draws[1:], start=draws[0]) / len(draws)


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [Loss]
