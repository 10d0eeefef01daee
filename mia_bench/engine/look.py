"""One look at each image of a dataset: its size, its hash, and what controls and an encoder make of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mia_bench.attack import Attack
from mia_bench.dataset import Sample
from mia_bench.encoder import Encoder
from mia_bench.engine.blame import fault
from mia_bench.engine.hashes import HashCache, reading
from mia_bench.errors import SampleError
from mia_bench.images import file_format, read_image, to_pixels
from mia_bench.near import dhash

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 512  # px of an image's short side that an encoder is given


@dataclass(frozen=True)
class Look:
    """What was seen of one sample; `reason` says why nothing was."""

    reason: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    bytes: int | None = None
    near: int | None = None
    terms: Mapping[str, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict)
    """By the label of a control, `(1, ...)` each."""
    faults: Mapping[str, str] = field(default_factory=dict)
    embedding: NDArray[np.float32] | None = None


class Looker:
    """Looks at samples; what a closer look wants is measured on those alone.

    Args:
        controls: Label -> control that asks no target; each measures the samples of the closer look.
        encoder: Embeds them.
        closer: Ids of these samples.
        device: Of the encoder.
    """

    def __init__(
        self, controls: Mapping[str, Attack], encoder: Encoder, closer: Collection[str], device: str = "cpu"
    ) -> None:
        self.controls, self.encoder, self.closer = controls, encoder, closer
        if closer:
            import torch

            torch.set_num_threads(1)  # images are looked at side by side
            encoder.open_alone(device)
        self.device = device

    def all(self, samples: Sequence[Sample]) -> dict[str, Look]:
        """Sample id -> what was seen of it; hashes are remembered."""
        cache, looks = HashCache(), dict[str, Look]()
        for portion in reading(samples, self.look):
            looks |= {sample.id: look for sample, look in portion}
            cache.add({sample.content: look.near for sample, look in portion if look.near is not None})
        return looks

    def look(self, sample: Sample) -> Look:
        """Decode one image."""
        given, read = sample.image, list[Any]()

        def once() -> Any:
            read.append(given() if callable(given) else given)
            return read[0]

        try:
            image = read_image(once if callable(given) else given, sample.id)
        except SampleError as error:
            return Look(error.why or error.what)
        file = read[0] if read else given
        seen: dict[str, Any] = {"width": image.width, "height": image.height, "near": dhash(image)}
        if isinstance(file, Path | bytes):
            size = len(file) if isinstance(file, bytes) else file.stat().st_size
            seen |= {"format": file_format(file), "bytes": size}
        if sample.id in self.closer:
            seen |= self._closer(sample, image)
        return Look(**seen)

    def _closer(self, sample: Sample, image: Image) -> dict[str, Any]:
        import torch

        terms, faults = {}, {}
        for label, control in self.controls.items():
            batch: Any = SimpleNamespace(ids=(sample.id,), captions=(sample.caption,), images=(image,))
            nobody: Any = None
            try:
                with torch.no_grad():
                    measured = control.measure(batch, nobody)
                terms[label] = {name: np.asarray(values, dtype=np.float64) for name, values in measured.items()}
            except Exception as error:  # a control of somebody else's: the inspection goes on without it
                faults[label] = fault(error, type(control))
        side = min(LARGEST, *image.size)
        pixels = torch.from_numpy(np.ascontiguousarray(to_pixels(image, side)))[None].to(self.device)
        return {"terms": terms, "faults": faults, "embedding": self.encoder.embed(pixels)[0].cpu().numpy()}
