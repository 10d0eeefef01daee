"""PIA: proximal initialisation (Kong et al. 2024, arXiv:2305.18355, Eq. 9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mia_bench import Access, Attack, Measured, Meta, Timestep, by_kind, hookimpl
from mia_bench.diffusion.reduce import power_sum

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.diffusion.schedule import Schedule
    from mia_bench.target import Target

GUIDANCE = 7.5  # of the authors' Stable Diffusion script


class PIA(Attack):
    """Distance between the noise predicted on the clean image and on the image noised with that very prediction.

    Nothing is random: the score does not depend on the seed.
    """

    meta = Meta(
        name="pia",
        summary="consistency of the noise predicted on the clean and on the noised image",
        paper="arXiv:2305.18355",
        citation="Kong et al., ICLR 2024, Eq. 9",
        licence="none stated",
        access=Access.NOISE,
        equation="s = -Σ|ε_0 - e(a_t x_0 + b_t ε_0, t, c)|^p, ε_0 = e(x_0, 0, c)",
        faults=(
            "The paper writes an l_p norm; the authors' program takes no root. The ranking is the same.",
            "The Stable Diffusion program stops with an error as published: it unpacks one tensor into two.",
            "It noises with linear betas where the model has scaled-linear ones, applies the pixels' 2x - 1 to "
            "latents, asks with guidance 7.5, and takes the word `none` for no caption.",
            "The DDPM program prints its true-positive rates sorted, apart from their timesteps: the best time is "
            "easily taken for the tested one.",
            "CopyMark's PIA never predicts on the clean image: it is the loss with one noise shared by 50 timesteps.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            t: Timestep of the second query; 200 in pixel space, 500 on latents (App. A.1).
            p: Power of the difference; 4 in the paper, never rooted.
            setting: As the `paper` has it, or as the authors' `repo-sd` script: latents 2x - 1, linear betas, guidance.
        """

        t: Timestep = by_kind(pixel=200, latent=500)
        p: int = Field(4, ge=1, le=16)
        setting: Literal["paper", "repo-sd"] = "paper"

    presets = {"p5": {"p": 5}, "t200": {"t": 200}, "t400": {"t": 400}, "repo-sd": {"setting": "repo-sd"}}

    def queries(self) -> int:
        return 2 if self.params.setting == "paper" else 4

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        t, (x0, schedule, predict) = self.params.t, self.reading(batch, target)
        clean = self.initial(predict(x0, 0))
        again = predict(schedule.noised(x0, clean, t), t)
        return {"distance": power_sum(clean - again, self.params.p)}

    def initial(self, clean: torch.Tensor) -> torch.Tensor:
        """The noise that the image is noised with, from that predicted on the clean image."""
        return clean

    def reading(self, batch: Batch, target: Target) -> tuple[torch.Tensor, Schedule, Callable[..., torch.Tensor]]:
        """The clean input, the noise levels it is noised by, and how the model is asked."""
        if self.params.setting == "paper":
            return batch.x0, target.schedule, lambda x, t: target.denoiser(x, t, batch.condition)
        import numpy as np

        from mia_bench.diffusion.keyed import combine
        from mia_bench.diffusion.sampler import guided
        from mia_bench.diffusion.schedule import Schedule

        linear = Schedule.from_betas(np.linspace(0.00085, 0.012, len(target.schedule)))
        x0 = combine(2 * batch.x0 - 1, lambda x: f"2{x}-1", batch.x0)
        given, null = batch.condition, batch.null if target.guided else None
        return x0, linear, lambda x, t: guided(target, x, t, given, null, GUIDANCE)

    def score(self, measured: Measured, calibration: Measured | None) -> NDArray[np.float64]:
        return -measured["distance"]


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [PIA]
