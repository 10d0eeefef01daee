"""A perceptual hash: near-duplicates differ in few of its bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def dhash(image: Image) -> int:
    """Difference hash: 64 bits, each whether a cell of the image, shrunk to 9 x 8 grey cells, is darker than its right.

    It survives resizing and recompression. Images of one tone all give 0.

    Args:
        image: Any mode and size.

    Returns:
        0 to 2**64 - 1; the first cell of the first row is the highest bit.
    """
    import numpy as np
    from PIL import Image as pil

    cells = np.asarray(image.convert("L").resize((9, 8), pil.Resampling.BOX), dtype=np.int16)
    return int.from_bytes(np.packbits(cells[:, :-1] < cells[:, 1:]).tobytes())
