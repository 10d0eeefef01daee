"""How many rows a call of each network takes: by the size of one, by memory, and by what fitted before.

What fitted is one small file for each device, target and way of loading it, in the user's cache: a GPU that ran out of
memory halves a network's rows until its calls fit, and the next run need not run out again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch

from mia_bench.cache import cache_folder
from mia_bench.diffusion.rows import RowRunner

if TYPE_CHECKING:
    from mia_bench.target import Target

ROW_ELEMENTS = 2**17  # input elements per call by default: 8 rows of 64x64x4 latents
ROW_PIXELS = 2**14  # of images per call on a CPU: 16 of 32 px
MAX_ROWS = 64  # more gain nothing; fewer spend more time between a small network's layers
ROW_BYTES = 4096  # of activations for each pixel of a latent model's image in float32, VAE included


def row_runners(
    target: Target, rows: int | None, pool: ThreadPoolExecutor | None, compiled: bool
) -> dict[str, RowRunner]:
    """What runs each network of a loaded target, by name.

    Args:
        target: The target.
        rows: Rows per call, where the user gave them.
        pool: Runs several calls at once.
        compiled: Whether the denoiser is compiled, which takes memory.
    """
    free = target.free_bytes()
    fitting = None if rows or free is None else _fitting(target, free, compiled)
    most = rows or target.first_rows()
    pictures = most
    if rows is None and free is None:
        # A VAE works at the size of the images: more at once take memory and gain nothing.
        pictures = max(1, min(most, ROW_PIXELS // target.image_size**2))

    def keep(kind: str, rows: int) -> None:
        """With the memory of that moment: others may have come to the device since the target was loaded."""
        if fitting and (now := target.free_bytes()) is not None:
            fitting.keep(kind, rows, now)

    runners = {}
    for kind, wanted in {"denoiser": most, "vae": pictures, "decoder": pictures, "text": most}.items():
        first, settled = (fitting.rows(kind, wanted), partial(keep, kind)) if fitting else (wanted, None)
        runners[kind] = RowRunner(first, pool, kind=kind, settled=settled)
    return runners


def first_rows(target: Target) -> int:
    """Rows to begin with: by the size of one input, on a GPU also by the memory left beside the weights."""
    rows = max(1, min(MAX_ROWS, ROW_ELEMENTS // prod(target.sample_shape)))
    free = target.free_bytes()
    itemsize = getattr(torch, target.dtype).itemsize
    return rows if free is None else rows_within(rows, free, target.image_size, itemsize)


def rows_within(rows: int, free: int, side: int, itemsize: int) -> int:
    """The largest power of two of at most `rows` whose activations fit in `free` bytes, at least 1.

    Args:
        rows: Most rows.
        free: Bytes free on the device.
        side: Side of the images in pixels.
        itemsize: Bytes of one number.
    """
    if rows * (needed := ROW_BYTES * side**2 * itemsize // 4) <= free:
        return rows
    return int(2 ** max(0, (free // needed).bit_length() - 1))


def _fitting(target: Target, free: int, compiled: bool) -> Fitting:
    loaded = {"dtype": target.dtype, "side": target.image_size, "compiled": compiled, **target.options.given}
    models = {"target": target.fingerprint, "reference": target.reference and target.reference.fingerprint}
    return Fitting({**target.device_facts(), **models, **loaded}, free)


class Fitting:
    """What fitted before.

    Args:
        about: What decides how much memory a call takes and how much there is: device, target, dtype, ...
        free: Bytes free now, beside the weights.
    """

    def __init__(self, about: Mapping[str, Any], free: int) -> None:
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
        self.about, self.free, self.path = about, free, cache_folder() / "rows" / f"{key}.json"

    def rows(self, network: str, most: int) -> int:
        """Rows to begin with: what fitted, as often doubled as there is now twice the memory, and `most` at most."""
        found = self._read().get(network)
        if found is None:
            return most
        rows, free = found
        while rows < most and self.free >= 2 * free:
            rows, free = 2 * rows, 2 * free
        return min(rows, most)

    def keep(self, network: str, rows: int, free: int) -> None:
        """Remember what fitted in so many free bytes; a cache that cannot be written costs nothing but the memory."""
        kept = {name: {"rows": r, "free_bytes": f} for name, (r, f) in self._read().items()}
        kept[network] = {"rows": rows, "free_bytes": free}
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            part = self.path.with_name(f".{self.path.name}.{os.getpid()}-{uuid4().hex[:8]}.tmp")
            part.write_text(json.dumps({"about": self.about, "fitted": kept}, indent=1) + "\n", encoding="utf-8")
            part.replace(self.path)

    def _read(self) -> dict[str, tuple[int, int]]:
        """Network -> rows and bytes that were free; nothing of a file that is damaged."""
        try:
            fitted = json.loads(Path(self.path).read_text(encoding="utf-8"))["fitted"]
            found = {str(name): (entry["rows"], entry["free_bytes"]) for name, entry in fitted.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return {n: v for n, v in found.items() if all(type(number) is int and number > 0 for number in v)}
