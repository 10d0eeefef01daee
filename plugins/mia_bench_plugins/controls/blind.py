"""Blind: can members be told from non-members without asking the model at all?

A classifier on the images' statistics and the captions' characters, as in Das, Zhang, Tramèr 2024 (arXiv:2406.16201),
or on an encoder's view of the images.
Where it separates the classes, an attack that reads the same images or captions may be measuring the split.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mia_bench import Access, Attack, Control, Measured, Meta, hookimpl, scoring
from mia_bench.errors import NothingError
from mia_bench_plugins.encoders import ICONS, weights_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from mia_bench.batch import Batch
    from mia_bench.target import Target

WINDOW = 512  # px: statistics are taken from the centre, so that a large photograph costs no more than a small one
BUCKETS = 1024
LEAST = 10  # groups of each class
QUALITIES = (60, 70, 75, 80, 85, 90, 95)  # of JPEG, tried on each image
PERCENTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Blind(Control):
    """Cross-validated logistic regression on features of images and captions; the target is never asked.

    The encoder is the image half of the embedded image-text similarity. It was trained on other styles of icons, never
    on an audited image, and sees an image at 32 px: on photographs it is a weak one.
    """

    meta = Meta(
        name="blind",
        summary="image statistics and caption characters, without the target",
        paper="arXiv:2406.16201",
        citation="Das, Zhang, Tramèr, 2024",
        access=Access.NONE,
        needs=frozenset(),
        caption="optional",
        orientation="higher is member",
        version=2,
        equation="s = w · features(image, caption) + b, with w and b fitted on the other folds",
    )

    class Params(Control.Params):
        """Parameters.

        Attributes:
            features: What the classifier sees: statistics of the `image`, characters of the `caption`, `both`, or what
                an `encoder` makes of the image.
        """

        features: Literal["image", "caption", "both", "encoder"] = scoring("both")

        def measuring(self) -> dict[str, Any]:
            """All presets share one measurement, of one encoder."""
            return {**super().measuring(), "encoder": weights_of(ICONS / "image_text")}

    presets = {
        "image": {"features": "image"},
        "caption": {"features": "caption"},
        "encoder": {"features": "encoder"},
    }

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self.modality = "image" if self.params.features == "encoder" else self.params.features

    def measure(self, batch: Batch, target: Target) -> dict[str, NDArray[np.float32]]:
        """Features of each sample, float32; nothing is fitted, no sample sees another.

        Returns:
            `image` (B, 53): see `image_features`. `thumbnail` (B, 192): the image as 8x8 RGB in [0, 1].
            `embedding` (B, 64): by the encoder. `caption` (B, 1024): hashed counts of 1-3 characters within words.
            `length` (B, 7): see `length_features`.
        """
        from mia_bench_plugins.encoders.icons import embedding

        captions = [caption or "" for caption in batch.captions]
        return {
            "image": _rows([_size(image) + image_features(_window(image)) for image in batch.images]),
            "thumbnail": _rows([_thumbnail(image) for image in batch.images]),
            "embedding": np.stack([embedding(image) for image in batch.images]),
            "caption": _hashed(captions),
            "length": _rows([length_features(caption) for caption in captions]),
        }

    def score(self, measured: Measured, calibration: Measured | None) -> NDArray[np.float64]:
        """Decision values out of fold."""
        from threadpoolctl import threadpool_limits

        from mia_bench_plugins.controls.out_of_fold import Features, out_of_fold

        member = measured.member
        if member is None:
            raise NothingError("control blind", "no sample has a label", "use a dataset with members and non-members")
        for label, name in zip((True, False), measured.classes, strict=True):
            found = len({group for group, m in zip(measured.groups, member, strict=True) if m == label})
            if found < LEAST:
                why = f"{found} group{'' if found == 1 else 's'} of {name}, {LEAST} needed"
                raise NothingError("control blind", why, "audit more samples")
        parts = ["image", "caption"] if self.params.features == "both" else [self.params.features]
        if "caption" in parts and not measured["caption"].any():
            parts.remove("caption")
        if not parts:
            raise NothingError("control blind@caption", "no captions", "use blind@image")

        order = np.array(sorted(range(len(measured.ids)), key=measured.ids.__getitem__))
        groups = np.unique(np.array(measured.groups)[order], return_inverse=True)[1]
        features = Features({name: values[order] for name, values in measured.items()}, parts)
        values = np.empty(len(order))
        with threadpool_limits(1):  # the same sums on any number of cores; threads gain nothing at this size
            values[order] = out_of_fold(features, member[order], groups)
        return values


def _rows(rows: list[list[float]]) -> NDArray[np.float32]:
    return np.array(rows, dtype=np.float32)


def _window(image: Image) -> Image:
    """The centre, at most 512x512 px, cut along the grid of 8x8 blocks that JPEG uses."""
    left, top = (max(0, side - WINDOW) // 16 * 8 for side in image.size)
    return image.crop((left, top, min(image.width, left + WINDOW), min(image.height, top + WINDOW)))


def _size(image: Image) -> list[float]:
    """Log width and height, log aspect ratio with and without sign, in natural units (4)."""
    width, height = np.log(image.size)
    return [width, height, width - height, abs(width - height)]


def _thumbnail(image: Image) -> list[float]:
    from PIL.Image import Resampling

    small = image.resize((8, 8), Resampling.BOX)
    return (np.asarray(small, dtype=np.float32) / 255).ravel().tolist()


def image_features(image: Image) -> list[float]:
    """Statistics of one RGB image, values in [0, 1] (49).

    Per channel: mean, standard deviation, 5 percentiles (21). Share of black, of white (2). Saturation: mean, standard
    deviation (2). Colourfulness: spread and mean of two opponent channels (4). Entropy of the grey histogram, bits (1).
    Gradients of the grey image: mean along x and y, share of none, log energy of second differences (4). Log share of
    spectral energy in 4 bands (4). Strength of the 8-px JPEG grid along x and y (2). Bytes per pixel as PNG and as
    JPEG of quality 75, log (2). Log error of saving it as JPEG of 7 qualities: least at the one it was saved at (7).
    """
    planes = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    planes = np.ascontiguousarray(planes)
    grey = np.tensordot(np.array([0.299, 0.587, 0.114], dtype=np.float32), planes, 1)
    parts = (_levels(image), _colour(planes), _entropy(grey), _texture(grey), _spectrum(grey), _grid(grey))
    return [*(float(value) for part in parts for value in part), *_bytes(image), *_errors(image)]


def _levels(image: Image) -> Iterator[Any]:
    """Mean, standard deviation and percentiles of each channel, from its histogram."""
    level = np.arange(256) / 255
    for counts in np.array(image.histogram(), dtype=np.float64).reshape(3, 256):
        share = counts / counts.sum()
        mean = share @ level
        yield from (mean, np.sqrt(share @ (level - mean) ** 2))
        yield from level[np.searchsorted(share.cumsum(), PERCENTILES)]


def _colour(planes: NDArray[np.float32]) -> Iterator[Any]:
    red, green, blue = planes
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    yield from ((high == 0).mean(), (low == 1).mean())
    saturation = (high - low) / np.maximum(high, np.float32(1e-6))
    yield from (saturation.mean(), saturation.std())
    for opponent in (red - green, (red + green) / 2 - blue):
        yield from (opponent.std(), abs(opponent.mean()))


def _entropy(grey: NDArray[np.float32]) -> Iterator[Any]:
    share = np.bincount((grey * 255).round().astype(np.intp).ravel(), minlength=256) / grey.size
    yield -(share[share > 0] * np.log2(share[share > 0])).sum()


def _texture(grey: NDArray[np.float32]) -> Iterator[Any]:
    across, down = np.abs(np.diff(grey, axis=1)), np.abs(np.diff(grey, axis=0))
    yield from (across.mean(), down.mean(), (across < 1e-6).mean())
    curvature = np.diff(grey, 2, axis=1)[1:-1] + np.diff(grey, 2, axis=0)[:, 1:-1]
    yield np.log((curvature**2).mean() + 1e-6)


def _spectrum(grey: NDArray[np.float32]) -> Iterator[Any]:
    power = np.abs(np.fft.rfft2(grey - grey.mean())) ** 2
    radius = np.hypot(np.fft.fftfreq(grey.shape[0])[:, None], np.fft.rfftfreq(grey.shape[1])[None])
    band = np.digitize(radius, (0.0625, 0.125, 0.25)).ravel()
    energy = np.bincount(band, weights=power.ravel(), minlength=4)
    yield from np.log(energy / (energy.sum() + 1e-6) + 1e-6)


def _grid(grey: NDArray[np.float32]) -> Iterator[Any]:
    for plane in (grey, grey.T):
        steps = np.abs(np.diff(plane, axis=1)).mean(0)
        edges = steps[7::8].mean() if len(steps) > 7 else steps.mean()
        yield np.log((edges + 1e-3) / (steps.mean() + 1e-3))


def _bytes(image: Image) -> Iterator[float]:
    for kind in ("PNG", "JPEG"):
        yield float(np.log(len(_saved(image, kind).getbuffer()) / (image.width * image.height)))


def _errors(image: Image) -> Iterator[float]:
    """Mean squared error, in grey levels, of saving the image once more: its quantisation goes unchanged just once."""
    from PIL import Image as images

    levels = np.asarray(image, dtype=np.float32)
    for quality in QUALITIES:
        with images.open(_saved(image, "JPEG", quality)) as again:
            error = ((np.asarray(again, dtype=np.float32) - levels) ** 2).mean()
        yield float(np.log(error + 0.05))


def _saved(image: Image, kind: str, quality: int = 75) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, compress_level=1, quality=quality)
    return file


def _hashed(captions: list[str]) -> NDArray[np.float32]:
    from sklearn.feature_extraction.text import HashingVectorizer

    # Case is kept: on LAION-mi it is part of what tells the classes apart.
    vectorizer = HashingVectorizer(
        analyzer="char_wb",
        ngram_range=(1, 3),
        n_features=BUCKETS,
        alternate_sign=False,
        norm=None,
        lowercase=False,
        dtype=np.float32,
    )
    counts: NDArray[np.float32] = vectorizer.transform(captions).toarray()
    return counts


def length_features(caption: str) -> list[float]:
    """Log number of characters and words; shares of non-ASCII, upper case, digits, punctuation; any caption (7)."""
    if not caption:
        return [0.0] * 7
    kinds = (
        lambda c: not c.isascii(),
        str.isupper,
        str.isdigit,
        lambda c: not (c.isalnum() or c.isspace()),
    )
    shares = [sum(map(kind, caption)) / len(caption) for kind in kinds]
    return [float(np.log1p(len(caption))), float(np.log1p(len(caption.split()))), *shares, 1.0]


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [Blind]
