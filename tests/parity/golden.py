"""Golden numbers, and the public classes run on the same inputs and noise."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mia_bench.attack import Measured
from mia_bench.batch import Batch
from mia_bench.diffusion.noise import RecordedNoise
from mia_bench.images import to_pixels

FIXTURES = Path(__file__).parent / "fixtures"
B = 6
IDS = tuple(f"image{i}" for i in range(B))
LOSS, PIA, SECMI, DIFFERENCE, TH_SCORE, MODEL = 2e-5, 2e-4, 5e-4, 1e-5, 5e-4, 1e-4


def load(name):
    with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as data:
        return dict(data)


INPUTS = load("inputs")
CAPTIONS = [str(c) for c in INPUTS["captions"]]


def recorded(arrays):
    """`(quantity, t, draw)` -> array `(B, C, H, W)`, as a noise source."""
    return RecordedNoise({key: dict(zip(IDS, rows, strict=True)) for key, rows in arrays.items()})


def batch(target, arrays, captions=CAPTIONS, word_weights=None):
    """The six images as a batch with recorded noise."""
    target.forget()
    images = [Image.fromarray(image) for image in INPUTS["images"]]
    pixels = torch.from_numpy(np.stack([to_pixels(image, target.image_size) for image in images]))
    return Batch(IDS, captions, images, pixels, target, recorded(arrays), word_weights)


def measure(attack, made, target):
    """An attack's terms, as the store would hand them to `score`."""
    terms = {name: values.double().numpy() for name, values in attack.measure(made, target).items()}
    return Measured(terms, IDS, np.ones(B, dtype=bool), IDS)


def relative(found, wanted):
    return float(np.max(np.abs(np.asarray(found) - wanted) / np.abs(wanted)))


def absolute(found, wanted):
    return float(np.max(np.abs(np.asarray(found) - wanted)))
