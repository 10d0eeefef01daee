"""The contract of an encoder: what images, and captions, look like to a network that is not the target.

Attacks that compare pictures name an encoder (`drc[dino]`); it is resolved by that name alone, never replaced by
another. A family supplies `files`, `load` and one method for each thing it `offers`; this class runs them at a fixed
row count, so that a sample's numbers do not depend on its batch.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from mia_bench.errors import NetworkError, UnavailableError, brief
from mia_bench.hashing import sha256_of

if TYPE_CHECKING:
    import torch

    from mia_bench.target import Target


class Offer(StrEnum):
    """What an encoder can do."""

    EMBED = "embed"  # an image as a vector
    DISTANCE = "distance"  # how different two images look
    TEXT = "text"  # a caption as a vector in the space of the images
    ATTENTION = "attention"  # which places of an image matter
    CAPTION = "caption"  # an image in words


class EncoderMeta(BaseModel):
    """What is known about an encoder before it is loaded.

    Attributes:
        name: Name in brackets on the command line, lower case.
        summary: One line.
        offers: What it can do. One that embeds also offers a distance, 1 - cosine.
        source: Where its weights come from.
        fetch: The command that fetches them.
        offline: Whether its weights arrive with an installed package.
        argument: What may follow the name: `name:PATH`; empty if nothing may.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    summary: str
    offers: frozenset[Offer]
    source: str
    fetch: str = ""
    offline: bool = False
    argument: str = ""
    licence: str = ""
    citation: str = ""

    @property
    def takes(self) -> str:
        """What may follow `name:`, or nothing."""
        return self.argument


class Encoder(ABC):
    """Base class of an encoder.

    Images are float32 `(B, 3, H, W)`, about [-1, 1], of any size: an encoder resizes and normalises them itself.
    """

    meta: ClassVar[EncoderMeta]

    def __init__(self, argument: str = "") -> None:
        self.argument = argument
        self.failure: UnavailableError | None = None
        self._seen: dict[tuple[str, str], torch.Tensor] = {}  # of this batch: what was asked of which pictures

    # What a family supplies -------------------------------------------------------------------------------------

    def files(self) -> Mapping[str, Path]:
        """Every file that defines it, by name: found, not read, without torch; none if it has no weights of its own.

        Raises:
            UnavailableError: The weights, or the package that reads them, are not on this machine; see `missing`.
        """
        return {}

    def weights(self) -> Mapping[str, str]:
        """sha256 of each of its files, by name; readable before `load`, without torch.

        Raises:
            UnavailableError: As `files`.
        """
        return {name: sha256_of(path) for name, path in self.files().items()}

    @abstractmethod
    def load(self, target: Target) -> None:
        """Read the weights to `target.device`, in float32; some encoders are part of the target."""

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        """`(R, 3, H, W)` -> `(R, D)`."""
        raise NotImplementedError

    def between(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Distance of each image and its other, `(R,)`, at least 0; 1 - cosine of the embeddings."""
        return one_minus_cosine(self.embedded(images), self.embedded(others))

    def attended(self, images: torch.Tensor) -> torch.Tensor:
        """How much each patch matters, `(R, h, w)`, at least 0."""
        raise NotImplementedError

    def worded(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts in the space of `embedded`, `(N, D)`; called with one text at a time."""
        raise NotImplementedError

    def captioned(self, images: torch.Tensor) -> list[str]:
        """A caption for each image; called with one image at a time."""
        raise NotImplementedError

    # What the harness and attacks call --------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all its files; part of the identity of what is measured with it."""
        return hashlib.sha256(json.dumps(dict(self.weights()), sort_keys=True).encode()).hexdigest()[:32]

    def open(self, target: Target) -> None:
        """Load it beside an opened target. What is damaged fails when it is asked: attacks that do not ask go on."""
        from mia_bench.diffusion.rows import RowRunner

        try:
            self.load(target)
        except UnavailableError as error:
            self.failure = error
        except Exception as error:
            self.failure = self.missing(f"it cannot be loaded: {type(error).__name__}: {brief(error)}")
        name = f"encoder {self.meta.name}"
        self.rows = RowRunner(target.vae_rows.rows, target.vae_rows.pool, name, kind=name)
        self.compared = RowRunner(target.vae_rows.rows, target.vae_rows.pool, name, kind=name)  # no rows of a network
        self._texts: dict[str, torch.Tensor] = {}
        self._captions: dict[str, str] = {}

    def open_alone(self, device: str = "cpu") -> None:
        """Load it without a target, one image at a time. An encoder that is part of a target fails when it is asked."""
        nobody: Any = SimpleNamespace(device=device, vae_rows=SimpleNamespace(rows=1, pool=None))
        self.open(nobody)

    def forget(self) -> None:
        """Start a new batch: what it made of earlier pictures is dropped, of texts kept."""
        self._seen.clear()

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Images as vectors, float32 `(B, D)`; named pictures of one batch are looked at once."""
        return self._once("embed", self.embedded, images)

    def distance(self, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """How different each image looks from its other, float32 `(B,)`, at least 0 up to rounding."""
        if type(self).between is not Encoder.between:  # of maps, too large to be kept
            return self._run(self.between, images, others)
        import torch

        embedded = self.embed(images), self.embed(others)
        with torch.inference_mode():
            return self.compared(one_minus_cosine, *embedded)

    def attention(self, images: torch.Tensor) -> torch.Tensor:
        """How much each patch matters, float32 `(B, h, w)`; named pictures of one batch are looked at once."""
        return self._once("attention", self.attended, images)

    def text(self, texts: Sequence[str]) -> torch.Tensor:
        """Captions in the space of `embed`, float32 `(B, D)`; each distinct one is encoded once."""
        import torch

        self._check()
        with torch.inference_mode(), self.rows.timed():
            for text in texts:
                if text not in self._texts:
                    self._texts[text] = self.worded([text])[0].float()
            return torch.stack([self._texts[text] for text in texts])

    def captions(self, images: torch.Tensor) -> list[str]:
        """A caption for each of B images; equal images are described once."""
        import torch

        self._check()
        found = []
        with torch.inference_mode(), self.rows.timed():
            for i in range(len(images)):
                image = images[i : i + 1]
                key = hashlib.sha256(image.cpu().numpy().tobytes()).hexdigest()
                if key not in self._captions:
                    self._captions[key] = self.captioned(image)[0]
                found.append(self._captions[key])
        return found

    def missing(self, what: str) -> UnavailableError:
        """The error that says what is missing, where it comes from and how to get it."""
        copy = f"{self.meta.name}:{self.meta.argument}"
        own = f"; or name a copy: {copy}" if self.meta.argument and f"{self.meta.name}:" not in self.meta.fetch else ""
        return UnavailableError(
            f"encoder {self.meta.name}", f"{what}; it comes from {self.meta.source}", self.meta.fetch + own
        )

    def _check(self) -> None:
        if error := self.failure:  # of the attack that asks, not of a sample
            raise NetworkError(error.what, error.why, error.fix) from error

    def _once(self, what: str, network: object, images: torch.Tensor) -> torch.Tensor:
        from mia_bench.diffusion.keyed import picture_name

        name = picture_name(images)
        if name is None:
            return self._run(network, images)
        if (what, name) not in self._seen:
            self._seen[what, name] = self._run(network, images)
        return self._seen[what, name]

    def _run(self, network: object, *images: torch.Tensor) -> torch.Tensor:
        import torch

        from mia_bench.diffusion.keyed import plain

        self._check()
        with torch.inference_mode():
            return self.rows(network, *(plain(i) for i in images)).float()  # type: ignore[arg-type]


def one_minus_cosine(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Of vectors `(R, D)`: `(R,)`."""
    from torch.nn import functional

    return 1 - functional.cosine_similarity(left, right)
