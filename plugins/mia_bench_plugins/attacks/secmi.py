"""SecMI: step-wise error comparing (Duan et al. 2023, arXiv:2302.01316, Eqs. 9-13)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from mia_bench import Access, Attack, Measured, Meta, Scores, Timestep, by_kind, hookimpl
from mia_bench.diffusion.reduce import power_sum

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target


class SecMI(Attack):
    """How far one deterministic step on and back misses the image's own deterministic noising.

    x_t comes of DDIM inversion with stride k; y is x_t one step of k' further, r is y back at t. The t-error
    |r - x_t|^2 equals a_t^2 (p_{t+k'} - p_t)^2 |e(x_t, t) - e(y, t+k')|^2 with p = b/a, which is computed here: it does
    not subtract two nearly equal images. Nothing is random. Eq. 13 prints t for the step back; it acts at t+k'.
    """

    meta = Meta(
        name="secmi",
        summary="error of one deterministic step on and back",
        paper="arXiv:2302.01316",
        citation="Duan et al., ICML 2023, Eqs. 9-13",
        licence="MIT",
        access=Access.NOISE,
        equation="s = -Σ|r - x_t|^p, x_t by DDIM inversion of x_0, y = DDIM(x_t, t -> t+k'), r = DDIM(y, t+k' -> t)",
        faults=(
            "The released loop stops a step short: asked for t = 100 it measures at 90.",
            "Its options for t and k are declared as booleans: any value given counts as 1.",
            "Its curve has 2,000 equidistant thresholds, and the rate at 1 % false positives is read at the nearest.",
            "SecMI-LDM sums over the batch, so that only batches of one are right, and ignores guidance on the way up.",
            "CopyMark's SecMI noises at random instead of inverting, and reads index 14 of a descending list: t = 51.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            t: Where the error is taken; 90 in pixel space (what the released code reaches), 100 on latents (the paper).
            stride: Steps of the inversion, k.
            ahead: The step on and back, k'.
            p: Power of the error, never rooted.
            noising: How x_t is made: by deterministic `inversion`, or with `random` noise, which is no longer SecMI.
        """

        t: Timestep = by_kind(pixel=90, latent=100)
        stride: int = Field(10, ge=1)
        ahead: int = Field(10, ge=1)
        p: int = Field(2, ge=1, le=16)
        noising: Literal["inversion", "random"] = "inversion"

    presets = {
        "paper": {"t": 100},  # Section 5.1
        "cifar-code": {"t": 90},  # the released loop stops one step short of 100
        "ldm-code": {"t": 140},  # index 14 of SecMI-LDM's ascending list
        "clid-baseline": {"t": 100, "ahead": 1},  # the flags of CLiD's comparison
        # CopyMark (Liang & You 2024, arXiv:2410.03640): random noise, and index 14 of a list that descends.
        "copymark": {"t": 51, "noising": "random"},
    }

    def queries(self) -> int:
        inversion = range(0, self.params.t, self.params.stride) if self.params.noising == "inversion" else ()
        return len(inversion) + 2

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        return {"error": power_sum(t_error(batch, target, self.params), self.params.p)}

    def score(self, measured: Measured, calibration: Measured | None) -> Scores | NDArray[np.float64]:
        return -measured["error"]


def t_error(batch: Batch, target: Target, params: SecMI.Params) -> torch.Tensor:
    """The difference r - x_t, float32 `(B, C, H, W)`."""
    schedule, denoiser, given = target.schedule, target.denoiser, batch.condition
    t, on = params.t, params.t + params.ahead
    x: torch.Tensor = batch.x0
    if params.noising == "random":
        x = schedule.noised(x, batch.eps(t), t)
    else:
        for start in range(0, t, params.stride):
            stop = min(start + params.stride, t)
            x = schedule.jump(x, denoiser(x, start, given), start, stop)
    here = denoiser(x, t, given)
    there = denoiser(schedule.jump(x, here, t, on), on, given)
    schedule.check_signal(on)
    low, high = schedule.noise[[t, on]] / schedule.signal[[t, on]]
    return float(schedule.signal[t] * (high - low)) * (here - there)


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [SecMI]
