"""What is known of a target before it is loaded, and how the user wants it loaded."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from mia_bench.attack import Capability

Kind = Literal["pixel", "latent"]


class TargetOptions(BaseModel):
    """How a target is loaded.

    Attributes:
        revision: Branch, tag or commit of a hub repository.
        lora: Adapters fused into the weights, each `PATH_OR_ID[:SCALE]`.
        allow_pickle: Whether pickled weights are read, where there are no others; tensors alone are unpickled.
        config: Folder or repository whose configurations a single file goes by.
        offload: Keep networks on the CPU, and move each layer to the device for its turn.
        resolution: Side of the images in pixels, if not the model's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: str | None = None
    lora: tuple[str, ...] = ()
    allow_pickle: bool = False
    config: str | None = None
    offload: bool = False
    resolution: int | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What differs from the defaults, JSON-ready."""
        return self.model_dump(mode="json", exclude_defaults=True)


class TargetMeta(BaseModel):
    """What is known about a target, or a family of them, before it is loaded.

    Attributes:
        name: Name on the command line; families take the path of a pipeline: `name:PATH`.
        summary: One line.
        kind: `latent` if the denoiser works on VAE latents, else `pixel`.
        capabilities: What it can do.
        pipelines: Class names in a diffusers `model_index.json` that this family loads.
        argument: What else may follow the name: `name:ARGUMENT`.
        repository: Hub repository of a single known model.
        formerly: Repositories that were moved there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str
    kind: Kind
    capabilities: frozenset[Capability]
    pipelines: frozenset[str] = frozenset()
    argument: str = ""
    repository: str = ""
    formerly: frozenset[str] = frozenset()
    licence: str = ""
    citation: str = ""

    @property
    def takes(self) -> str:
        """What may follow `name:`, or nothing."""
        return self.argument or ("PATH" if self.pipelines and not self.repository else "")
