"""Encoders of images that the targets do not own: for comparing pictures, and pictures with captions."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

ICONS = Path(__file__).parents[1] / "data" / "emoji"  # holds the embedded encoders, one folder each


@cache
def weights_of(folder: Path) -> str:
    """sha256 of an encoder's weights: what is measured with it is of these; needs no torch."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
