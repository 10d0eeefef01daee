"""Targets that make images and show nothing of how: a function, a service."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mia_bench.errors import NetworkError, SampleError
from mia_bench.target import Target

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from mia_bench.batch import Batch

Key = tuple[object, ...]
SIDE = 512  # px, unless --resolution says otherwise
ROWS = 4  # samples per call of an encoder, and for each thread in a batch: few, since all their images are kept


@dataclass(frozen=True)
class Request:
    """One image to be made.

    Attributes:
        sample: Id of the sample that it is made for.
        caption: What to draw.
        seed: Of the image's noise, in [0, 2^31): the same for equal requests, whatever the batch.
        size: Side in pixels wanted; an answer of another size is brought to it as files are.
        steps: Wanted, where images are made in steps.
        guidance: Scale wanted, where there is one.
        image: What to start from, RGB with `size` pixels a side, or None.
        strength: How far to stray from it, in [0, 1]; None without an image.
    """

    sample: str
    caption: str
    seed: int
    size: int
    steps: int
    guidance: float
    image: Image | None = None
    strength: float | None = None


class BlackBox(Target):
    """Base class of targets without a denoiser; a family supplies `made` and what identifies it.

    A query is one image. Equal requests of one batch are asked once, and one that failed is not repeated. Pixels are
    those of 8-bit images.
    """

    reads = frozenset({"revision", "resolution"})

    @abstractmethod
    def made(self, requests: Sequence[Request]) -> Sequence[Image | bytes | SampleError]:
        """An image, or an image file's bytes, for each request; or why that one cannot be had.

        Raises:
            NetworkError: None can be had any more: the run ends, to be resumed.
        """

    def load(self) -> None:
        from mia_bench.diffusion.schedule import Schedule

        self.schedule = Schedule([], [])  # there is no noise level to ask about
        self.image_size = self.size
        self.sample_shape = (3, self.size, self.size)
        self.failure: NetworkError | None = None
        self._made: dict[Key, NDArray[np.uint8] | SampleError] = {}

    @property
    def size(self) -> int:
        """Side of the images in pixels."""
        return self.options.resolution or SIDE

    def settings(self) -> Mapping[str, Any]:
        return {"size": self.size, "revision": self.options.revision}

    def predict(self, x: torch.Tensor, t: torch.Tensor, **states: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError(f"{self.meta.name} makes images and predicts no noise")

    def first_rows(self) -> int:
        return ROWS

    def probe(self, batch: Batch) -> None:
        if self.failure:
            raise self.failure

    def forget(self) -> None:
        super().forget()
        self._made.clear()

    def generate(
        self,
        batch: Batch,
        captions: Sequence[str],
        *,
        strength: float | None = None,
        steps: int = 50,
        guidance: float = 7.5,
        draw: int = 0,
    ) -> torch.Tensor:
        import torch

        from mia_bench.diffusion.keyed import named_picture

        asker = "" if self.denoiser.share else self.denoiser.account.asker
        keys: list[Key] = [
            (asker, sample, batch.noise.identity, draw, caption, strength, steps, guidance)
            for sample, caption in zip(batch.ids, captions, strict=True)
        ]
        images = [None] * len(batch) if strength is None else _pictures(batch.pixels)
        requests = {
            key: Request(
                sample, caption, _seed(batch.noise.identity, sample, draw), self.size, steps, guidance, image, strength
            )
            for key, sample, caption, image in zip(keys, batch.ids, captions, images, strict=True)
            if key not in self._made
        }
        with self.denoiser.rows.lock:
            self.denoiser.asked[self.denoiser.account.asker] += len(batch)
        if requests:
            self._make(requests)
        found = []
        for key in keys:
            if isinstance(levels := self._made[key], SampleError):
                raise levels
            found.append(levels)
        pictures = torch.from_numpy(np.stack(found)).to(batch.pixels.device).float() / 127.5 - 1.0
        return named_picture(pictures, "made", str(keys) if self.denoiser.share else None)

    def _make(self, requests: Mapping[Key, Request]) -> None:
        """Have images made, and keep them."""
        rows = self.denoiser.rows
        with rows.timed():
            try:
                answers = self.made(list(requests.values()))
            except NetworkError as error:
                self.failure = error
                raise
            for (key, request), answer in zip(requests.items(), answers, strict=True):
                self._made[key] = self._taken(request, answer)
        rows.done += sum(not isinstance(self._made[key], SampleError) for key in requests)

    def _taken(self, request: Request, answer: Image | bytes | SampleError) -> NDArray[np.uint8] | SampleError:
        """An answer as `(3, size, size)` in 256 levels."""
        from mia_bench.images import read_image, to_pixels

        if isinstance(answer, SampleError):
            return answer
        try:
            pixels = to_pixels(read_image(lambda: answer, request.sample), request.size)
        except SampleError as error:
            what = f"answer of {self.meta.name} for sample {request.sample!r}"
            return SampleError(what, f"what {self.meta.name} gave is {_no_image(error.why)}", "leave the sample out")
        return _levels(pixels)


def _levels(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[-1, 1] in 256 levels."""
    return ((pixels + 1.0) * 127.5).round().astype(np.uint8)


def _no_image(why: str) -> str:
    return why if why.startswith("not ") else f"no image that can be used: {why}"


def _seed(identity: str, sample: str, draw: int) -> int:
    digest = hashlib.sha256("\x1f".join([identity, sample, "generate", str(draw)]).encode()).digest()
    return int.from_bytes(digest[:4]) >> 1  # 31 bits: what every service takes


def _pictures(pixels: torch.Tensor) -> list[Image]:
    from PIL import Image

    return [Image.fromarray(image.transpose(1, 2, 0)) for image in _levels(pixels.cpu().numpy())]
