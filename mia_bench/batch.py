"""What an attack sees of a batch: latents, conditions, noise and images, but no labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import torch

from mia_bench.diffusion.denoiser import Condition
from mia_bench.diffusion.keyed import Keyed, keyed, keys_of, named_picture
from mia_bench.diffusion.noise import NoiseSource
from mia_bench.diffusion.schedule import Timesteps
from mia_bench.diffusion.transfer import stacked
from mia_bench.trace import span

if TYPE_CHECKING:
    from PIL.Image import Image

    from mia_bench.target import Target

OTHER_VIEW = "view {!r} needs a name of its own: other pixels were encoded under it"
_NUMBERS = count()  # part of every name, so that two batches on one target never share


class Batch:
    """B samples, encoded once for all attacks. Latents and noise are shared: work on copies.

    Attributes:
        ids: Sample ids.
        captions: Captions, None where a sample has none.
        word_weights: Importance of each caption's words, None where the dataset supplies none.
        images: Decoded RGB images at native size.
    """

    def __init__(
        self,
        ids: Sequence[str],
        captions: Sequence[str | None],
        images: Sequence[Image],
        pixels: torch.Tensor,
        target: Target,
        noise: NoiseSource,
        word_weights: Sequence[tuple[float, ...] | None] | None = None,
    ) -> None:
        self.ids, self.captions, self.images, self._pixels = tuple(ids), tuple(captions), tuple(images), pixels
        self.word_weights = tuple(word_weights or [None] * len(self.ids))
        self.target, self.noise = target, noise
        self._memo: dict[object, Keyed] = {}
        self._views: dict[str, torch.Tensor] = {}
        self.claims: list[tuple[str, torch.Tensor]] = []  # the harness's: views encoded again, if of the same pixels
        self._number = next(_NUMBERS)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def pixels(self) -> torch.Tensor:
        """The images at the target's resolution, float32 `(B, 3, H, W)` in [-1, 1]; a copy."""
        return named_picture(self._pixels.clone(), "pixels", f"#{self._number}" if self.target.denoiser.share else None)

    @property
    def x0(self) -> Keyed:
        """Clean inputs of the denoiser, `(B, C, H, W)`: scaled latents, or pixels for a pixel-space model."""
        return self._once(("x0", ""), lambda: self._latents(self._pixels, ""))

    @property
    def condition(self) -> Condition:
        """Each sample's own caption; the empty caption where it has none."""
        return self.target.condition([c or "" for c in self.captions])

    @property
    def null(self) -> Condition:
        """The empty caption for every sample."""
        return self.target.condition([""] * len(self))

    def single(self, index: int) -> Batch:
        """A batch of one sample of this batch."""
        i = slice(index, index + 1)
        return Batch(
            self.ids[i],
            self.captions[i],
            self.images[i],
            self._pixels[i],
            self.target,
            self.noise,
            self.word_weights[i],
        )

    def encode(self, pixels: torch.Tensor, view: str) -> Keyed:
        """Encode changed images of this batch; once per view, whichever attack asks.

        Args:
            pixels: float32 `(B, 3, H, W)` in [-1, 1].
            view: Name of what was done to the images, e.g. `crop0.81`.

        Raises:
            ValueError: The view has no name. `check_unchanged` raises it too, for a name that was used for other
                pixels: comparing them here would wait for the device.
        """
        known = self._views.setdefault(view, pixels)
        if not view or known.shape != pixels.shape:
            raise ValueError(OTHER_VIEW.format(view))
        if known is not pixels:
            self.claims.append((view, (known == pixels).all()))
        return self._once(("x0", view), lambda: self._latents(pixels, view))

    def _latents(self, pixels: torch.Tensor, view: str) -> Keyed:
        std_noise = None
        if self.target.latent == "sample" and self.target.meta.kind == "latent":
            quantity = "latent" + (f":{view}" if view else "")
            shape = self.target.sample_shape
            std_noise = self._draw(lambda i: self.noise.draw(i, quantity, None, 0, shape))
        return keyed(self.target.encode(pixels, std_noise), f"x0#{self._number}{view and ':' + view}")

    def eps(self, t: Timesteps, draw: int | Sequence[int] = 0, quantity: str = "eps") -> Keyed:
        """Forward noise, independent for each t and draw.

        Args:
            t: One timestep, or T of them.
            draw: Number of the draw, or T of them.
            quantity: What it is for.

        Returns:
            `(B, C, H, W)`, or `(B, T, C, H, W)` for T timesteps or draws.
        """
        shape = tuple(self.target.sample_shape)  # not x0's: some attacks never read the image
        grid = np.broadcast(t, draw)
        cells, salt = [(int(s), int(d)) for s, d in grid], self.noise.identity

        def make() -> Keyed:
            arrays = self._draw(lambda i: np.stack([self.noise.draw(i, quantity, s, d, shape) for s, d in cells]))
            names = [f"{quantity}#{self._number}[{salt},{s},{d}]" for s, d in cells]
            return keyed(arrays, names) if grid.ndim else keyed(arrays[:, 0], names[0])

        return self._once((quantity, salt, grid.ndim, *cells), make)

    def draw(self, quantity: str, shape: tuple[int, ...], draw: int = 0) -> torch.Tensor:
        """Standard normal noise of any shape for what is no latent, e.g. text states: float32 `(B, *shape)`."""
        return self._draw(lambda i: self.noise.draw(i, quantity, None, draw, shape))

    def check_unchanged(self) -> None:
        """Called after each attack: what the next one reads must be what this one was given.

        Raises:
            RuntimeError: A shared tensor was changed in place; all of them are made anew when next asked for.
            ValueError: A view's name was used for other pixels.
        """
        claims, self.claims = self.claims, []
        if claims:
            same = torch.stack([claim for _, claim in claims]).tolist()  # waits for the device, once
            if not all(same):
                raise ValueError(OTHER_VIEW.format(claims[same.index(False)][0]))
        try:
            for tensor in self._memo.values():
                keys_of(tensor)
        except RuntimeError:
            self._memo.clear()
            self._views.clear()
            raise

    def _draw(self, one: Callable[[str], np.ndarray]) -> torch.Tensor:
        with span("noise"):
            return stacked([one(i) for i in self.ids], self._pixels.device)

    def _once(self, name: object, make: Callable[[], Keyed]) -> Keyed:
        if name not in self._memo:
            self._memo[name] = make()
        return self._memo[name]
