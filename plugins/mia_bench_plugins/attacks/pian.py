"""PIAN: PIA with the initial prediction normalised (Kong et al. 2024, arXiv:2305.18355, Eq. 10)."""

from __future__ import annotations

from math import pi, sqrt
from typing import TYPE_CHECKING, Literal

from mia_bench import Access, Attack, Meta, hookimpl
from mia_bench.diffusion.reduce import power_mean
from mia_bench_plugins.attacks.pia import PIA

if TYPE_CHECKING:
    import torch

# Only sqrt(2/pi) gives the normalised prediction the mean magnitude of a standard normal, which is the stated aim; the
# paper prints its inverse.
KAPPA = {"normal": sqrt(2 / pi), "paper": sqrt(pi / 2)}


class PIAN(PIA):
    """As PIA, with the noise predicted on the clean image scaled to the mean magnitude of Gaussian noise.

    The normalised prediction both noises the image and is what the second prediction is compared with. On Stable
    Diffusion it fails by its authors' own account (AUC about 57, Table 3).
    """

    meta = Meta(
        name="pian",
        summary="PIA with the initial prediction normalised",
        paper="arXiv:2305.18355",
        citation="Kong et al., ICLR 2024, Eq. 10",
        licence="none stated",
        access=Access.NOISE,
        equation="s = -Σ|n - e(a_t x_0 + b_t n, t, c)|^p, n = κ ε_0 / mean|ε_0|, ε_0 = e(x_0, 0, c)",
        faults=(
            "The paper prints kappa = sqrt(pi/2), its authors' program has sqrt(2/pi); CDI follows the paper.",
            "The Stable Diffusion program has the faults named at `pia`.",
            "CopyMark's PIAN normalises random noise, which does next to nothing: it is a loss.",
        ),
    )

    class Params(PIA.Params):
        """Parameters.

        Attributes:
            kappa: `normal` is sqrt(2/pi), as the authors' code has it; `paper` is the printed sqrt(pi/2).
        """

        kappa: Literal["normal", "paper"] = "normal"

    presets = {"paper": {"kappa": "paper"}, "t200": {"t": 200}, "repo-sd": {"setting": "repo-sd"}}

    def initial(self, clean: torch.Tensor) -> torch.Tensor:
        return clean * (KAPPA[self.params.kappa] / power_mean(clean, 1))[:, None, None, None]


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [PIAN]
