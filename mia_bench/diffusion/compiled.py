"""A network compiled with `torch.compile`: off unless asked for, and the same numbers within 1e-5."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

import torch

from mia_bench.attack import Capability
from mia_bench.diffusion.rows import out_of_memory
from mia_bench.errors import NetworkError, UsageError, brief

if TYPE_CHECKING:
    from mia_bench.target import Target


def check_compilable(target: Target) -> None:
    """Whether there is a network here that stays where it is compiled.

    Raises:
        UsageError: There is none.
    """
    if Capability.DENOISE not in target.capabilities:
        raise UsageError("--compile", f"{target.meta.name} has no denoiser here to compile", "leave it out")
    if target.options.offload:
        raise UsageError("--compile", "layers that visit the GPU (--offload) cannot be compiled", "leave one out")


class Compiled:
    """Compiles at the first call of a size; calls have one size, so that is once. Other threads wait for it.

    Args:
        network: `(x (R, C, H, W), t (R,), **states)` -> `(R, C, H, W)`.
    """

    def __init__(self, network: Callable[..., torch.Tensor]) -> None:
        self.network = network
        self.fast: Callable[..., torch.Tensor] = torch.compile(network, dynamic=False)
        self.ready: set[torch.Size] = set()
        self.lock = Lock()

    def __call__(self, x: torch.Tensor, t: torch.Tensor, **states: torch.Tensor) -> torch.Tensor:
        if x.shape not in self.ready:
            with self.lock:
                if x.shape not in self.ready:
                    return self._first(x, t, states)
        return self.fast(x, t, **states)

    def _first(self, x: torch.Tensor, t: torch.Tensor, states: dict[str, torch.Tensor]) -> torch.Tensor:
        try:
            output = self.fast(x, t, **states)
        except Exception as error:
            if out_of_memory(error):
                raise
            self.network(x, t, **states)  # if that fails too, it is not the compiler's fault
            why = f"the denoiser cannot be compiled here: {type(error).__name__}: {brief(error)}"
            fix = "leave it out, or install what torch.compile needs: a C++ compiler (g++, or CXX=...), on a GPU triton"
            raise NetworkError("--compile", why, fix) from error
        self.ready.add(x.shape)
        return output
