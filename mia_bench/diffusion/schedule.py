"""The forward process and its deterministic inverse: x_t = a_t x_0 + b_t eps.

For variance-preserving models a_t = sqrt(abar_t), b_t = sqrt(1 - abar_t) with abar_t the cumulative product of
1 - beta in float64; for flow matching a_t = 1 - sigma_t, b_t = sigma_t. Timesteps are 0-based raw integers into these
tables; there is no entry with abar = 1, a clean image sits at index 0 (Song et al. 2021, arXiv:2010.02502, Eq. 12).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mia_bench.diffusion.keyed import combine, plain

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]
Timesteps = int | Sequence[int]
PURE = 1e-6  # below this signal level float32 holds nothing of the image


class Schedule:
    """Signal and noise levels of a model, with the algebra built on them.

    Args:
        signal: a_t, float64 `(T,)`.
        noise: b_t, float64 `(T,)`.
        prediction: What the network puts out.
        offset: First timestep of a sampler's grid (`steps_offset`).
    """

    def __init__(
        self, signal: ArrayLike, noise: ArrayLike, prediction: Prediction = "epsilon", offset: int = 0
    ) -> None:
        self.signal: NDArray[np.float64] = np.asarray(signal, dtype=np.float64)
        self.noise: NDArray[np.float64] = np.asarray(noise, dtype=np.float64)
        if prediction not in get_args(Prediction):
            raise ValueError(f"unknown prediction type {prediction!r}; known: {', '.join(get_args(Prediction))}")
        self.prediction, self.offset = prediction, offset
        # Part of the names of what it makes: attacks bring noise levels of their own, and those inputs are others.
        self.mark = hashlib.sha256(self.signal.tobytes() + self.noise.tobytes()).hexdigest()[:8]

    @classmethod
    def from_betas(cls, betas: ArrayLike, prediction: Prediction = "epsilon", offset: int = 0) -> Schedule:
        """Variance-preserving schedule from beta_t, `(T,)`; the product is taken in float64."""
        abar = np.cumprod(1.0 - np.asarray(betas, dtype=np.float64))
        return cls(np.sqrt(abar), np.sqrt(1.0 - abar), prediction, offset)

    @classmethod
    def from_flow(cls, count: int = 1000, shift: float = 1.0) -> Schedule:
        """Flow matching on `count` levels: sigma_i = s u / (1 + (s - 1) u) of u = (i + 1) / count, s the shift.

        The last level is pure noise; its a_t is the smallest that keeps ratios finite.
        """
        u = np.arange(1, count + 1, dtype=np.float64) / count
        sigma = shift * u / (1.0 + (shift - 1.0) * u)
        return cls(np.maximum(1.0 - sigma, np.finfo(np.float64).eps), sigma, "flow")

    @property
    def abar(self) -> NDArray[np.float64]:
        """abar_t = a_t^2, float64 `(T,)`."""
        return self.signal**2

    def __len__(self) -> int:
        return len(self.signal)

    def agrees(self, other: Schedule) -> bool:
        """Whether both have the same noise levels; what their networks predict may differ."""
        return np.array_equal(self.signal, other.signal) and np.array_equal(self.noise, other.noise)

    def noised(self, x0: torch.Tensor, eps: torch.Tensor, t: Timesteps) -> torch.Tensor:
        """q(x0, eps, t) = a_t x0 + b_t eps.

        Args:
            x0: `(B, C, H, W)`.
            eps: `(B, C, H, W)`, or `(B, T, C, H, W)` with one draw for each t, or T draws for one t.
            t: One timestep, or T of them.

        Returns:
            `(B, C, H, W)` for one timestep and draw, else `(B, T, C, H, W)`.
        """
        a, b = self._at(self.signal, t, x0), self._at(self.noise, t, x0)
        grid = eps.ndim == 5 or not isinstance(t, int | np.integer)
        result = a * _with_grid(x0, grid) + b * _with_grid(eps, grid)
        return combine(result, lambda x, e, s: f"q:{self.mark}({x},{e},{s})", x0, eps, np.asarray(t))

    def jump(self, x: torch.Tensor, eps: torch.Tensor, t: int, to: int) -> torch.Tensor:
        """Deterministic DDIM move of `x` from timestep `t` to `to`, either way, without clamping x0.

        Raises:
            ValueError: There is no signal at `t`, as at the last level of a flow.
        """
        self.check_signal(t)
        x0 = (plain(x) - float(self.noise[t]) * plain(eps)) / float(self.signal[t])
        result = float(self.signal[to]) * x0 + float(self.noise[to]) * plain(eps)
        return combine(result, lambda v, e: f"J:{self.mark}({v},{e},{t}>{to})", x, eps)

    def check_signal(self, t: int) -> None:
        """Check that an image can be told from its noised version at `t`.

        Raises:
            ValueError: It is pure noise.
        """
        if self.signal[t] < PURE:
            raise ValueError(f"timestep {t} is pure noise: no image can be told from it; start below it")

    def epsilon(self, output: torch.Tensor, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """The predicted noise, from whatever the network predicts.

        Args:
            output: Network output `(R, C, H, W)`.
            x: Its input x_t, same shape.
            t: int64 `(R,)`.

        Returns:
            float32 `(R, C, H, W)`: v = a eps - b x0 gives eps = a v + b x_t; flow's v = eps - x0 gives x_t + a v.
        """
        output = output.float()
        if self.prediction == "epsilon":
            return output
        a, b = (level[t].view(-1, 1, 1, 1) for level in self._levels(x.device))
        if self.prediction == "v_prediction":
            return a * output + b * x
        if self.prediction == "sample":
            return (x - a * output) / b
        return x + a * output

    @cache  # noqa: B019 - one entry per device, and a schedule lives as long as its target
    def _levels(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """a_t and b_t on a device, float32 `(T,)`."""
        a, b = (torch.as_tensor(level, dtype=torch.float32, device=device) for level in (self.signal, self.noise))
        return a, b

    def _at(self, table: NDArray[np.float64], t: Timesteps, like: torch.Tensor) -> float | torch.Tensor:
        if np.max(t) >= len(table) or np.min(t) < 0:
            raise ValueError(f"timestep {t} is not in the model's schedule of {len(table)} steps")
        if isinstance(t, int | np.integer):
            return float(table[t])
        # Filled on the device, so that nothing waits for a copy.
        values = torch.stack([torch.full((), float(table[s]), device=like.device) for s in t])
        return values.view(1, -1, 1, 1, 1)


def _with_grid(x: torch.Tensor, grid: bool) -> torch.Tensor:
    """Give x an axis for timesteps and draws where there are several."""
    return plain(x).unsqueeze(1) if grid and x.ndim < 5 else plain(x)
