"""Fixtures shared by all tests: the embedded benchmark, and how a batch is made of it."""

import numpy as np
import pytest
import torch

from mia_bench.batch import Batch
from mia_bench.diffusion.noise import KeyedNoise
from mia_bench.images import to_pixels
from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji
from mia_bench_plugins.targets.emoji import EmojiRealworld


def open_emoji(**options):
    target = EmojiRealworld()
    target.open(**{"rows": 32, **options})
    return target


def batch_of(target, samples, noise=None):
    """A batch as the engine makes it."""
    target.forget()
    images = [s.open() for s in samples]
    pixels = torch.from_numpy(np.stack([to_pixels(image, target.image_size) for image in images]))
    weights = [s.word_weights for s in samples]
    return Batch(
        [s.id for s in samples],
        [s.caption for s in samples],
        images,
        pixels,
        target,
        noise or KeyedNoise(0),
        weights,
    )


@pytest.fixture(scope="session")
def emoji():
    """The embedded target: 32 rows, one thread."""
    return open_emoji()


@pytest.fixture(scope="session")
def emoji_samples():
    """Every sample of the embedded dataset, in the order `--limit` takes them."""
    return sorted(FluentEmoji().samples(), key=lambda s: s.order)


@pytest.fixture(scope="session")
def make_emoji():
    return open_emoji


@pytest.fixture(scope="session")
def make_batch():
    return batch_of
