"""Bodies that are images, kept as they came in files named by their hash."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mia_bench.errors import SampleError
from mia_bench.fetch.ledger import writing
from mia_bench.images import read_image

if TYPE_CHECKING:
    pass

MIN_SIDE = 64  # pixels


@dataclass(frozen=True)
class Kept:
    """An image that was kept: its size as displayed, in pixels, and its `mia_bench.near.dhash`."""

    sha256: str
    width: int
    height: int
    dhash: int


class RejectedError(Exception):
    """A body that is no image, or none that can be used.

    Args:
        word: The class of the error.
        note: The cause in a line.
    """

    def __init__(self, word: str, note: str) -> None:
        self.word = word
        super().__init__(note)


class Images:
    """A folder of images.

    Args:
        folder: Made when first written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where the image of this hash lies."""
        return self.folder / sha256[:2] / sha256

    def holds(self, sha256: str, size: int | None) -> bool:
        """Whether a file of this hash is there, with as many bytes."""
        with contextlib.suppress(OSError):
            return self.path(sha256).stat().st_size == size
        return False

    def keep(self, body: bytes, content_type: str = "") -> Kept:
        """Decode a body as every later reader will, and keep it.

        Raises:
            RejectedError: It is no image, or too small, large or long.
            UsageError: The folder cannot be written.
        """
        from mia_bench.near import dhash

        if body.lstrip()[:1] == b"<" or (not body and "html" in content_type):  # no image format starts so
            raise RejectedError("html", f"{content_type or 'a page'} in place of an image")
        temporary = self.folder / f".{os.getpid()}.{threading.get_ident()}.tmp"
        try:
            with writing(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                temporary.write_bytes(body)
            try:
                image = read_image(temporary, "fetched")
            except SampleError as error:
                raise RejectedError("not-image", error.why) from error
            if min(image.size) < MIN_SIDE:
                raise RejectedError("too-small", f"{image.width}x{image.height} px, shorter side under {MIN_SIDE}")
            kept = Kept(hashlib.sha256(body).hexdigest(), *image.size, dhash(image))
            path = self.path(kept.sha256)
            with writing(path):
                path.parent.mkdir(exist_ok=True)
                temporary.replace(path)
            return kept
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def kept(path: Path, sample: str, command: str) -> bytes:
    """A kept image's bytes, if they still are what its name says.

    Raises:
        SampleError: It is gone or was changed.
    """
    what = f"image of sample {sample!r} ({path})"
    try:
        data = path.read_bytes() if path.is_file() else None
    except OSError as error:
        raise SampleError(what, error.strerror or str(error), "make it readable") from error
    if data is None or hashlib.sha256(data).hexdigest() != path.name:
        raise SampleError(what, "damaged" if path.exists() else "missing", f"fetch it again: `{command}`")
    return data
