"""Transformers that predict the velocity of a flow: how a timestep becomes the time that the network is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mia_bench.diffusion.pipeline import PipelineTarget
from mia_bench.errors import UnavailableError

if TYPE_CHECKING:
    import torch


class FlowTransformer(PipelineTarget):
    """Base of Stable Diffusion 3 and FLUX: timestep i stands for the level sigma_i of the schedule.

    The velocity is eps - x0, so that eps = x + (1 - sigma) v.
    """

    denoiser_part = "transformer"

    def fit(self) -> None:
        import torch

        if self.schedule.prediction != "flow":
            why = f"the scheduler is one of {self.schedule.prediction}, not of a flow"
            raise UnavailableError(
                "target part scheduler", why, "use the pipeline's own FlowMatchEulerDiscreteScheduler"
            )
        self.sigmas = torch.as_tensor(self.schedule.noise, dtype=torch.float32, device=self.device)

    def sigma(self, t: torch.Tensor) -> torch.Tensor:
        """Noise levels float32 `(R,)` of timesteps int64 `(R,)`."""
        return self.sigmas[t]
