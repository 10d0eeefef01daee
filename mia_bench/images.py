"""Reading images that strangers made: bounded, first frame, RGB, and an error that names the file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.errors import SampleError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 100_000_000  # beyond this a file is taken for a decompression bomb
MIN_SIDE = 8  # smaller than one VAE cell: nothing of the image would be left


def read_image(source: Path | Callable[[], Image], name: str) -> Image:
    """Decode an image to 8-bit RGB at native size.

    Orientation tags are applied, transparency is laid over white, animations give their first frame, 16-bit grey is
    scaled to 8 bit.

    Args:
        source: A file, or a function that returns the image.
        name: Sample id, for the message.

    Raises:
        SampleError: Missing, damaged, truncated, too small (side under 8 px) or too large (over 100 Mpx).
    """
    try:
        image = source() if callable(source) else _open(source)
    except SampleError:
        raise
    except Exception as error:  # Pillow raises many kinds; each one means this image cannot be used
        where = "" if callable(source) else f" ({source})"
        reason = str(error).replace("\n", " ") or type(error).__name__
        raise SampleError(f"image of sample {name!r}{where}", reason, "replace or remove the file") from error
    if min(image.size) < MIN_SIDE:
        width, height = image.size
        raise SampleError(
            f"image of sample {name!r}",
            f"{width}x{height} px is too small (shorter side under {MIN_SIDE} px)",
            "replace or remove it",
        )
    return image


def _open(path: Path) -> Image:
    from PIL import Image as pil
    from PIL import ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("error", pil.DecompressionBombWarning)
        with pil.open(path) as file:
            if file.width * file.height > MAX_PIXELS:
                raise ValueError(f"{file.width}x{file.height} px is more than {MAX_PIXELS:,} pixels")
            file.load()
            return to_rgb(ImageOps.exif_transpose(file))


def to_rgb(image: Image) -> Image:
    """8-bit RGB: 16-bit scaled, transparency over white."""
    import numpy as np
    from PIL import Image as pil

    if image.mode.startswith("I") or image.mode == "F":
        values: Any = np.asarray(image, dtype=np.float64)
        if image.mode == "F":
            values = values * (255.0 if values.max(initial=0.0) <= 1.0 else 1.0)
        else:
            values = values / (257.0 if image.mode.startswith("I;16") or values.max(initial=0) > 255 else 1.0)
        image = pil.fromarray(values.clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = pil.new("RGBA", image.size, "white")
        image = pil.alpha_composite(white, image)
    return image.convert("RGB")


def to_pixels(image: Image, size: int) -> Any:
    """Resize the short side to `size` (bilinear), crop the centre: float32 `(3, size, size)` in [-1, 1].

    This is the preprocessing that SecMI, PIA and CLiD share for Stable Diffusion. An image that already has the
    right size is not resampled.
    """
    import numpy as np
    from PIL import Image as pil

    if image.size != (size, size):
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        image = image.resize((width, height), pil.Resampling.BILINEAR)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return (np.asarray(image, dtype=np.float32) / np.float32(127.5) - np.float32(1.0)).transpose(2, 0, 1)
