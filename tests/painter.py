"""A function that knows its members: it gives their images back, whatever it is asked; to others it gives noise."""

import os
import signal
from functools import cache
from pathlib import Path

import numpy as np

from mia_bench_plugins.datasets.fluent_emoji import FluentEmoji


@cache
def known():
    return {s.caption: s for s in FluentEmoji().samples() if s.member}


def draw(caption, *, seed, size, image=None, strength=None):
    """Each call leaves a line in $PAINTER_LOG; the one that $PAINTER_DIES counts to kills the process."""
    if log := os.environ.get("PAINTER_LOG"):
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{caption}|{seed}|{strength}\n")
        if len(Path(log).read_text().splitlines()) == int(os.environ.get("PAINTER_DIES", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
    if caption in known():
        return known()[caption].open()
    return np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)


def words(caption, size, **others):
    """From captions alone, though it would take anything."""
    assert set(others) == {"seed", "steps", "guidance", "image", "strength"}
    return np.full((size, size, 3), len(caption), dtype=np.uint8)


def plain(caption):
    return np.full((48, 40, 3), len(caption), dtype=np.uint8)


def wash(caption, *, seed, size, image=None, strength=None):
    """A colour by caption and seed, laid over the image as strongly as is wanted."""
    tone = np.random.default_rng([*caption.encode(), seed]).integers(0, 256, 3)
    colour = np.broadcast_to(tone, (size, size, 3))
    return (colour if image is None else (1 - strength) * np.asarray(image) + strength * colour).astype(np.uint8)
