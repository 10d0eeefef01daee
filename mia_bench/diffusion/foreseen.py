"""Noise drawn before it is asked for: a batch asks for the same draws as the one before, of other samples.

Drawing is host work, about 20 us per 1,024 numbers; numpy lets other threads run meanwhile. What is handed out is the
source's own, to the bit, whether it was foreseen or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from mia_bench.diffusion.noise import Array, NoiseSource
from mia_bench.trace import span

MOST = 2**27  # bytes drawn ahead: 2,048 draws of Stable Diffusion's latents

Draw = tuple[str, int | None, int, tuple[int, ...]]


class ForeseenNoise:
    """A source that remembers what one batch asked of it, to draw that for the next.

    Args:
        source: Where the noise comes from.
        most: Bytes drawn ahead; the rest is drawn when asked.
    """

    def __init__(self, source: NoiseSource, most: int = MOST) -> None:
        self.source, self.most, self.identity = source, most, source.identity
        self._asked: dict[Draw, None] = {}  # by the batch at work, in order
        self._before: tuple[Draw, ...] = ()  # by the one before
        self._ready: dict[tuple[str, Draw], Array] = {}

    def draw(self, sample_id: str, quantity: str, t: int | None, draw: int, shape: tuple[int, ...]) -> Array:
        what = quantity, t, draw, tuple(shape)
        self._asked[what] = None
        ready = self._ready.get((sample_id, what))  # kept: another attack's grid may hold it too
        return self.source.draw(sample_id, quantity, t, draw, shape) if ready is None else ready

    def turn(self, sample_ids: Sequence[str]) -> None:
        """A batch begins: what was drawn for the one before is dropped."""
        if self._asked:
            self._before, self._asked = tuple(self._asked), {}
        mine = set(sample_ids)
        for key in [key for key in list(self._ready) if key[0] not in mine]:
            self._ready.pop(key, None)

    def foresee(self, sample_ids: Sequence[str]) -> None:
        """Draw for these samples what the last whole batch asked, as far as memory goes; for a thread of its own."""
        left = self.most
        with span("noise"):
            for what in self._before:
                for sample_id in sample_ids:
                    left -= 4 * prod(what[3])
                    if left < 0:
                        return
                    self._ready[sample_id, what] = self.source.draw(sample_id, *what)
