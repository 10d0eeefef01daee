"""Reading images that strangers made: bounded, first frame, RGB, and an error that names the file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.errors import SampleError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 100_000_000  # beyond this a file is taken for a decompression bomb
MAX_ASPECT = 50  # beyond this the short side cannot be brought to a model's resolution within bounded memory
BAND = 2**20  # pixels that are converted at a time
MIN_SIDE = 8  # smaller than one VAE cell: nothing of the image would be left

# Pillow decodes these by itself; others run programs (EPS), or are never photographs.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")


def read_image(source: Path | Callable[[], Image | bytes], name: str) -> Image:
    """Decode an image to 8-bit RGB at native size.

    Orientation tags are applied, transparency is laid over white, animations give their first frame, 16-bit grey is
    scaled to 8 bit.

    Args:
        source: A file, or a function that returns the image or an image file's bytes.
        name: Sample id, for the message.

    Raises:
        SampleError: Missing, damaged, truncated, no image, too small (side under 8 px), too large (over 100 Mpx) or
            too long (one side over 50 times the other).
    """
    what = f"image of sample {name!r}" + ("" if callable(source) else f" ({source})")
    try:
        found = source() if callable(source) else source
        image = _open(found) if isinstance(found, Path | bytes) else to_rgb(found)
        _check_shape(*image.size)
    except SampleError:
        raise
    except Exception as error:  # Pillow raises many kinds; each one means this image cannot be used
        raise SampleError(what, _reason(error), "replace or remove it") from error
    return image


def _reason(error: Exception) -> str:
    """The cause in one line; the message already names the file."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image in a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).replace("\n", " ") or type(error).__name__


def _check_shape(width: int, height: int) -> None:
    short, long = sorted((width, height))
    if short < MIN_SIDE:
        raise ValueError(f"{width}x{height} px is too small (shorter side under {MIN_SIDE} px)")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} px is more than {MAX_PIXELS:,} pixels")
    if long > MAX_ASPECT * short:
        raise ValueError(f"{width}x{height} px is too long (one side over {MAX_ASPECT} times the other)")


def _open(source: Path | bytes) -> Image:
    from PIL import ImageOps

    if isinstance(source, Path) and source.exists() and not source.is_file():
        raise ValueError("not a regular file")  # reading a pipe or a device would never end
    with _header(source) as file:
        _check_shape(*file.size)
        file.load()
        ImageOps.exif_transpose(file, in_place=True)
        return to_rgb(file)


@contextmanager
def _header(source: Path | bytes) -> Iterator[ImageFile]:
    from PIL import Image as pil

    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    pil.init()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, on size (checked here) and on odd metadata
        with pil.open(stream, formats=[f for f in FORMATS if f in pil.OPEN]) as file:
            yield file


def file_format(source: Path | bytes) -> str:
    """Name of an image's format, as its content says, e.g. `JPEG`; for one that `read_image` could read."""
    with _header(source) as file:
        return file.format or ""


def to_rgb(image: Image) -> Image:
    """8-bit RGB: 16-bit scaled, transparency over white.

    What goes by way of a wider form goes there band by band, so a large image takes little more than itself and the
    result.
    """
    from PIL import Image as pil

    if image.mode.startswith("I") or image.mode == "F":
        part = _greyed(image)
    elif image.has_transparency_data:
        part = _over_white
    else:
        return image.convert("RGB")
    made = pil.new("RGB", image.size)
    for top, band in _bands(image):
        made.paste(part(band).convert("RGB"), (0, top))
    return made


def _bands(image: Image) -> Iterator[tuple[int, Image]]:
    """The first row of each band, and the band."""
    width, height = image.size
    rows = max(1, BAND // max(1, width))
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _greyed(image: Image) -> Callable[[Image], Image]:
    """How a band of an image of wide numbers becomes 8-bit grey: by the range of the whole."""
    import numpy as np
    from PIL import Image as pil

    highest = 0.0
    for _, band in _bands(image):
        values = np.asarray(band, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("pixels that are not numbers")
        highest = max(highest, values.max(initial=0.0))
    if image.mode == "F":
        factor, divisor = (255.0 if highest <= 1.0 else 1.0), 1.0
    else:
        factor, divisor = 1.0, (257.0 if image.mode.startswith("I;16") or highest > 255 else 1.0)

    def part(band: Image) -> Image:
        values = np.asarray(band, dtype=np.float64) * factor / divisor
        return pil.fromarray(values.clip(0, 255).round().astype(np.uint8))

    return part


def _over_white(band: Image) -> Image:
    from PIL import Image as pil

    band = band.convert("RGBA")
    return pil.alpha_composite(pil.new("RGBA", band.size, "white"), band)


def to_pixels(image: Image, size: int) -> Any:
    """Resize the short side to `size` (bilinear), crop the centre: float32 `(3, size, size)` in [-1, 1].

    This is the preprocessing that SecMI, PIA and CLiD share for Stable Diffusion, rounded as torchvision's `Resize`
    and `CenterCrop` round. An image that already has the right size is not resampled.
    """
    import numpy as np
    from PIL import Image as pil

    if image.size != (size, size):
        short = min(image.size)
        width, height = (size * side // short for side in image.size)
        image = image.resize((width, height), pil.Resampling.BILINEAR)
        left, top = round((width - size) / 2), round((height - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    return (np.asarray(image, dtype=np.float32) / np.float32(127.5) - np.float32(1.0)).transpose(2, 0, 1)
