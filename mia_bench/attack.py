"""The contract of an attack: measure, then score.

An attack is one class. `measure` is expensive: it asks the target's denoiser for predictions on one batch, knows no
labels, and returns per-sample terms that the harness stores. It runs without gradients; what the batch hands out is
shared with other attacks and must not be changed in place. `score` is cheap: it turns the stored terms of all
samples into one number per sample, **higher = more likely a member**, and can be rerun without the target.
"""

from __future__ import annotations

import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from mia_bench.errors import BrokenPluginError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from mia_bench.encoder import Offer
    from mia_bench.target import Batch, Target


PARTIAL = "reimplementation (partial spec)"  # shown beside rows of attacks whose papers leave parts open
Timestep = Annotated[int, Field(ge=0, le=999)]


class Access(StrEnum):
    """What an attacker must be able to see of the target, from least to most."""

    NONE = "none"  # controls: the target is never asked
    IMAGES = "images"  # generated images only
    LOSS = "loss"  # the denoising loss at a chosen noise level
    NOISE = "noise"  # the predicted noise itself
    GRADIENT = "gradient"  # gradients with respect to inputs or weights


class Capability(StrEnum):
    """What a target can do, and what an attack may need of it."""

    DENOISE = "denoise"
    CAPTION = "caption"
    GENERATE = "generate"
    VARY = "vary"  # generate from an image and a strength; whoever denoises and generates can
    GRADIENT = "gradient"
    REFERENCE = "reference"  # another model beside the target, named by the user


class Meta(BaseModel):
    """What is known about an attack before it runs.

    Attributes:
        name: Name on the command line, lower case.
        summary: One line that says what is measured.
        paper: Where the attack is defined (arXiv id or DOI).
        citation: Authors, venue, year.
        access: What the attacker sees of the target.
        needs: Capabilities the target must have.
        caption: Whether captions are ignored, used when there, or required.
        calibration: Whether labelled samples outside the audit set are ignored, used when there, or required.
        equation: The score in plain text, as the paper has it.
        faults: Known faults and departures of the published programs, for the reader of their tables.
        licence: Licence of the authors' own program, where there is one; nothing is copied from it.
        orientation: Which way the paper's own statistic points; `score` always returns higher = member.
        version: Definition version; raise it whenever the numbers change.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    summary: str
    paper: str
    citation: str = ""
    licence: str = ""
    access: Access
    needs: frozenset[Capability] = frozenset({Capability.DENOISE})
    caption: Literal["unused", "optional", "required"] = "optional"
    calibration: Literal["unused", "optional", "required"] = "unused"
    equation: str = ""
    faults: tuple[str, ...] = ()
    orientation: Literal["lower is member", "higher is member"] = "lower is member"
    version: int = 1


def by_kind(*, pixel: Any, latent: Any, **constraints: Any) -> Any:
    """A parameter whose default depends on the kind of target; resolved when the run is planned."""
    return Field(None, json_schema_extra={"by_kind": {"pixel": pixel, "latent": latent}}, **constraints)


def scoring(default: Any, **constraints: Any) -> Any:
    """A parameter that only `score` reads: changing it needs no new measurement."""
    return Field(default, json_schema_extra={"stage": "score"}, **constraints)


class Parameters(BaseModel):
    """Base of an attack's parameter model: frozen, unknown names refused.

    Attributes:
        samples: Most samples of each class in each split that are measured, the same ones every time; None for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int | None = Field(None, ge=1, json_schema_extra={"stage": "plan"})

    @classmethod
    def _extra(cls, name: str) -> dict[str, Any]:
        extra = cls.model_fields[name].json_schema_extra
        return extra if isinstance(extra, dict) else {}

    def resolved(self, kind: str) -> Self:
        """Fill in the defaults that depend on the kind of target (`pixel` or `latent`)."""
        defaults = {
            name: self._extra(name)["by_kind"][kind]
            for name in type(self).model_fields
            if "by_kind" in self._extra(name) and getattr(self, name) is None
        }
        # Validated again, because a default by kind obeys the same constraints as a given value.
        return type(self).model_validate({**self.model_dump(), **defaults})

    def measuring(self) -> dict[str, Any]:
        """The parameters that change what is measured, JSON-ready; part of a measurement's identity."""
        others = {n for n in type(self).model_fields if self._extra(n).get("stage") in ("score", "plan")}
        return self.model_dump(mode="json", exclude=others)


@dataclass(frozen=True)
class Measured(Mapping[str, "NDArray[np.float64]"]):
    """Stored measurements of many samples: term name -> float64 array `(N, ...)`.

    Attributes:
        terms: The arrays that `measure` returned, batches put together in the order of `ids`.
        ids: Sample ids, length N.
        audit: bool `(N,)`, true for samples of the audit set.
        groups: Group of each sample, length N; near-duplicates share one.
        member: bool `(N,)`, or None where labels may not be seen.
        classes: What true and false of `member` are called; a control may be asked for others than members.
    """

    terms: Mapping[str, NDArray[np.float64]]
    ids: tuple[str, ...]
    audit: NDArray[np.bool_]
    groups: tuple[str, ...]
    member: NDArray[np.bool_] | None = None
    classes: tuple[str, str] = ("members", "non-members")

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        return self.terms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.terms)

    def __len__(self) -> int:
        return len(self.terms)

    def select(self, rows: NDArray[np.bool_]) -> Measured:
        """The samples where `rows` (bool `(N,)`) is true."""
        kept = rows.nonzero()[0]
        return Measured(
            {name: values[rows] for name, values in self.terms.items()},
            tuple(self.ids[i] for i in kept),
            self.audit[rows],
            tuple(self.groups[i] for i in kept),
            None if self.member is None else self.member[rows],
            self.classes,
        )


@dataclass(frozen=True)
class Scores:
    """One score per sample, with what the reader of a table must know about how it came about.

    Attributes:
        values: float64 `(N,)`, higher = more likely a member.
        tags: Marks shown beside the row, e.g. `transductive`.
        fitted: Numbers fitted on the calibration set (or its stand-in), e.g. `{"alpha": 0.9}`.
    """

    values: NDArray[np.float64]
    tags: tuple[str, ...] = ()
    fitted: Mapping[str, float] = field(default_factory=dict)


class Attack(ABC):
    """Base class of every attack. One instance holds one resolved set of parameters.

    Class attributes:
        meta: What is known before it runs.
        Params: Parameter model; an attack with parameters defines `class Params(Attack.Params)`.
        presets: Named, frozen option sets, selected as `name@preset`.
        aliases: Other names, and the labels they stand for.
    """

    meta: ClassVar[Meta]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    aliases: ClassVar[Mapping[str, str]] = {}

    class Params(Parameters):
        """No parameters."""

    def __init__(self, params: Any = None) -> None:
        self.params: Any = self.Params() if params is None else params

    def needs(self) -> frozenset[Capability]:
        """What the target must be able to do for these parameters."""
        return self.meta.needs

    def encoders(self) -> Mapping[str, frozenset[Offer]]:
        """Encoders that these parameters name, and what each must offer; `measure` finds them in `target.encoders`."""
        return {}

    def requires(self) -> tuple[str, ...]:
        """Labels of the attacks that these parameters combine; none for most.

        An attack that requires others measures nothing: they are run too, and `score` finds their scores as terms
        under these labels, those of calibration samples from fits without the sample's fold.
        """
        return ()

    def artifacts(self, batch: Batch, target: Target) -> Mapping[str, torch.Tensor]:
        """Pictures that explain the scores of a batch, in the order they are shown.

        Args:
            batch: As for `measure`, and asked after it: what it asked is asked again.
            target: The loaded target.

        Returns:
            Name -> float32 `(B, 3, H, W)` in [-1, 1].
        """
        return {}

    @abstractmethod
    def queries(self) -> int:
        """Denoiser queries asked per image with these parameters (a guided step is two), without what it requires."""

    def generations(self) -> int:
        """Images generated per image: what a target without a denoiser is asked for."""
        return 1

    @abstractmethod
    def measure(self, batch: Batch, target: Target) -> Mapping[str, Any]:
        """Measure one batch.

        Args:
            batch: Latents `x0`, captions' `condition`, noise and images of B samples, without labels.
            target: The loaded target; ask its `denoiser`.

        Returns:
            Term name -> tensor or array `(B, ...)`, finite. Keep the terms, not only their mean.
        """

    @abstractmethod
    def score(self, measured: Measured, calibration: Measured | None) -> Scores | NDArray[np.float64]:
        """Score samples from their stored measurements.

        Args:
            measured: All samples of the run, without labels.
            calibration: Labelled samples outside the audit set; None unless it holds members and non-members.

        Returns:
            float64 `(N,)`, higher = more likely a member, or `Scores` where there is more to say.
        """


class Control(Attack):
    """Looks like an attack in tables but is none: it never asks the target and may see audit labels, out of fold.

    Attributes:
        modality: What it reads: `image`, `caption` or `both`. An attack must beat the controls of what it reads itself.
    """

    modality: str = "both"

    def queries(self) -> int:
        return 0

    def generations(self) -> int:
        return 0

    @abstractmethod
    def score(self, measured: Measured, calibration: Measured | None) -> Scores | NDArray[np.float64]:
        """As for an attack, but `measured.member` holds the labels: every score must be out of fold."""


def source_of(cls: type, until: tuple[type, ...]) -> str:
    """Hash of the modules that define a class and its bases, up to the contracts `until`.

    Raises:
        BrokenPluginError: There is no source, so that a change of it could not be noticed.
    """
    texts = []
    for base in cls.__mro__:
        if base in until:
            break
        try:
            texts.append(inspect.getsource(inspect.getmodule(base) or base))
        except (OSError, TypeError) as error:
            why = "it has no source, so measurements could not be told from those of another version"
            raise BrokenPluginError(f"class {cls.__qualname__}", why, "load it from a file") from error
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
