"""Residual networks as classifiers, and how these and others are trained (He et al. 2016, arXiv:1512.03385).

A training is seeded and takes one thread, so that the same data give the same network whatever the number of cores;
several may run side by side. The random state of the process and its number of threads are left as they were.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mia_bench.diffusion.rows import RowRunner

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mia_bench.fit import Predict

WIDTHS = (64, 128, 256, 512)
ROWS = 64  # per call when predicting: a row's output does not depend on the other rows

Optimizer = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(B, channels, H, W)` -> `(B, width, H / stride, W / stride)`."""
        return functional.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Sequential):
    """ResNet-18, two blocks a stage, mean over all positions.

    Args:
        channels: Of the input.
        outputs: How many numbers it puts out.
        stages: Cut after so many of the four stages.
        small: For small images: a 3x3 stem without max-pooling, not one that makes a quarter of each side.
    """

    def __init__(self, channels: int, outputs: int, stages: int = 4, small: bool = True) -> None:
        size, stride = (3, 1) if small else (7, 2)
        layers: list[nn.Module] = [
            nn.Conv2d(channels, WIDTHS[0], size, stride, size // 2, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(),
        ]
        if not small:
            layers.append(nn.MaxPool2d(3, 2, 1))
        before = WIDTHS[0]
        for stage, width in enumerate(WIDTHS[:stages]):
            layers += [Block(before, width, 2 if stage else 1), Block(width, width, 1)]
            before = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, outputs))


def trained(
    make: Callable[[], nn.Module],
    x: NDArray[np.float64],
    y: NDArray[np.generic],
    *,
    loss: Loss,
    optimizer: Optimizer,
    epochs: int,
    batch: int | None = None,
    seed: int = 0,
) -> Predict:
    """Train a network and hand back what it puts out. The last epoch is kept; nothing is chosen on the data.

    Args:
        make: Makes the network; its weights are drawn under `seed`.
        x: Inputs `(n, C, H, W)`, or `(n, D)`: whatever the network takes.
        y: What `loss` compares the outputs with, `(n, ...)`, of its own dtype.
        loss: `(outputs, y) -> ()`, a mean over the rows.
        optimizer: Makes it from the weights.
        epochs: Passes over the data, each in a new order.
        batch: Most rows per step, all of them if not given. Steps take equally many: a lone last row would have no
            spread for batch normalisation.
        seed: Of the weights and the order.

    Returns:
        `X (m, ...) -> outputs`, float64 `(m, outputs)`.
    """
    inputs, wanted = _float32(x), torch.from_numpy(y)
    steps = 1 if batch is None else -(-len(x) // batch)
    with _one_thread(), torch.inference_mode(False), torch.enable_grad():
        with _lock, torch.random.fork_rng(devices=[]):  # the random state is the process's
            torch.manual_seed(seed)
            network = make().train()
            orders = [torch.randperm(len(x)) for _ in range(epochs)]
        descent = optimizer(network.parameters())
        for order in orders:
            for rows in order.tensor_split(steps):
                descent.zero_grad()
                torch.autograd.backward(loss(network(inputs[rows]), wanted[rows]))
                descent.step()
    network.eval()

    def predict(values: NDArray[np.float64]) -> NDArray[np.float64]:
        with _one_thread(), torch.no_grad():
            outputs: NDArray[np.float64] = RowRunner(ROWS)(network, _float32(values)).double().numpy()
            return outputs

    return predict


def _float32(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


_lock = threading.Lock()
_before: list[int] = []  # threads found by each training that is under way; the first found what to restore


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for each training, and the old number once none is under way: parts of it are the process's."""
    with _lock:
        _before.append(torch.get_num_threads())
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            first = _before[0]
            _before.pop()
            if not _before:
                torch.set_num_threads(first)
