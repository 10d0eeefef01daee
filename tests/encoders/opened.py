"""Opened encoders, and pictures to look at."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import sklearn.datasets
import torch
from PIL import Image
from torch.nn import functional

from mia_bench.images import to_pixels

PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"


def opened(encoder, rows=2, **target):
    """The encoder, beside a target that has only what it asks for; what a run would say when it is asked."""
    encoder.open(SimpleNamespace(device="cpu", vae_rows=SimpleNamespace(rows=rows, pool=None), **target))
    if encoder.failure:
        raise encoder.failure
    return encoder


def photograph(name, side=64):
    """`china` (a palace) or `flower` (a daisy), float32 `(1, 3, side, side)` in [-1, 1]."""
    with Image.open(PHOTOGRAPHS / f"{name}.jpg") as image:
        return torch.from_numpy(np.ascontiguousarray(to_pixels(image.convert("RGB"), side)))[None]


def blurred(images, by=3):
    """Box blur, the same size."""
    return functional.avg_pool2d(images, by, 1, by // 2, count_include_pad=False)
