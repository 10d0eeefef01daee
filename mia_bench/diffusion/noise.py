"""Where noise comes from: keyed to the sample by default, or replayed from a record.

A draw is named by (sample id, quantity, t, draw). It does not depend on the batch, the order or the attack, so equal
queries are equal; it is made on the CPU, so devices agree.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from zipfile import BadZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from mia_bench.errors import UnavailableError, brief

Array = NDArray[np.float32]


class NoiseSource(Protocol):
    """Anything that hands out standard normal noise for one sample."""

    @property
    def identity(self) -> str:
        """Names the source in a measurement's identity."""

    def draw(self, sample_id: str, quantity: str, t: int | None, draw: int, shape: tuple[int, ...]) -> Array:
        """Noise of `shape`, float32.

        Args:
            sample_id: The sample.
            quantity: What it is for: `eps` (forward noise) or `latent` (VAE posterior).
            t: Timestep, or None where there is none.
            draw: Number of the draw.
            shape: Shape for one sample, `(C, H, W)`.
        """


_THREAD = threading.local()  # a generator is not to be rekeyed while another thread draws from it
_START = np.zeros(4, dtype=np.uint64)


def _rekeyed(key: bytes) -> np.random.Generator:
    """As `Generator(Philox(key=...))` of 16 bytes, little-endian; a new one would gather entropy first."""
    if not hasattr(_THREAD, "generator"):
        _THREAD.generator = np.random.Generator(np.random.Philox(key=0))
    generator: np.random.Generator = _THREAD.generator
    generator.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {"counter": _START, "key": np.frombuffer(key, dtype="<u8").astype(np.uint64)},
        "buffer": _START,
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return generator


class KeyedNoise:
    """Gaussian noise from a counter-based generator keyed by sha256(seed, sample, quantity, t, draw).

    Args:
        seed: Run seed.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.identity = f"keyed:{seed}"

    def draw(self, sample_id: str, quantity: str, t: int | None, draw: int, shape: tuple[int, ...]) -> Array:
        name = "\x1f".join([str(self.seed), sample_id, quantity, str(t), str(draw)])
        generator = _rekeyed(hashlib.sha256(name.encode()).digest()[:16])
        return generator.standard_normal(shape, dtype=np.float32)


class RecordedNoise:
    """Replays given arrays, so that runs of other programs can be reproduced to the digit.

    Args:
        arrays: `(quantity, t, draw)` -> `{sample id: array (C, H, W)}`. A key with t None serves every t that has no
            record of its own (one noise shared by all timesteps).
    """

    def __init__(self, arrays: Mapping[tuple[str, int | None, int], Mapping[str, NDArray[np.floating]]]) -> None:
        self.arrays = arrays
        digest = hashlib.sha256()
        for key in sorted(arrays, key=repr):
            for sample_id in sorted(arrays[key]):
                digest.update(repr((key, sample_id)).encode())
                digest.update(np.ascontiguousarray(arrays[key][sample_id], dtype=np.float32).tobytes())
        self.identity = f"recorded:{digest.hexdigest()[:16]}"

    @classmethod
    def from_npz(cls, path: Path) -> RecordedNoise:
        """Read a file with `sample_id` `(N,)` and arrays `QUANTITY/T/DRAW` `(N, C, H, W)`; T is `-` for none.

        Raises:
            UnavailableError: The file cannot be read as such.
        """
        try:
            if path.exists() and not is_zipfile(path):  # numpy would take it for a pickle
                raise ValueError("not an .npz file")
            with np.load(path, allow_pickle=False) as data:
                ids = [str(i) for i in data["sample_id"]]
                arrays = {}
                for name in data.files:
                    if name != "sample_id":
                        quantity, t, draw = name.split("/")
                        key = (quantity, None if t == "-" else int(t), int(draw))
                        arrays[key] = dict(zip(ids, data[name], strict=True))
        except (OSError, EOFError, KeyError, TypeError, ValueError, BadZipFile, zlib.error) as error:
            objects = "it holds Python objects, not plain arrays" if "allow_pickle" in str(error) else brief(error)
            raise UnavailableError(
                f"recorded noise {path}",
                "no such file" if isinstance(error, FileNotFoundError) else objects,
                "give an .npz with `sample_id` and arrays named QUANTITY/T/DRAW",
            ) from error
        return cls(arrays)

    def draw(self, sample_id: str, quantity: str, t: int | None, draw: int, shape: tuple[int, ...]) -> Array:
        record = self.arrays.get((quantity, t, draw)) or self.arrays.get((quantity, None, draw)) or {}
        if sample_id not in record:
            raise UnavailableError(
                f"recorded noise for sample {sample_id!r}",
                f"no draw {draw} of {quantity!r} at t={t}",
                "record it, or run without recorded noise",
            )
        noise: Array = np.asarray(record[sample_id], dtype=np.float32)
        if noise.shape != shape:
            raise UnavailableError(f"recorded noise for sample {sample_id!r}", f"shape {noise.shape}, not {shape}")
        return noise


class SaltedNoise:
    """Another source's noise, made the attack's own (`--independent-noise`). A recorded source has no such noise."""

    def __init__(self, source: NoiseSource, salt: str) -> None:
        self.source, self.salt = source, salt
        self.identity = f"{source.identity}+{salt}"

    def draw(self, sample_id: str, quantity: str, t: int | None, draw: int, shape: tuple[int, ...]) -> Array:
        # Posterior noise stays common: it belongs to the encoded image, not to an attack.
        own = quantity if quantity.split(":")[0] == "latent" else f"{quantity}\x1f{self.salt}"
        return self.source.draw(sample_id, own, t, draw, shape)
