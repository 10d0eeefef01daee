"""Noise as a probe: generate from the image's own inverted noise (2026, arXiv:2601.21628, Eq. 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from mia_bench import Access, Attack, Capability, Measured, Meta, hookimpl, scoring
from mia_bench.diffusion.reduce import power_sum

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.target import Target


class NoiseProbe(Attack):
    """Distance of the image from what a tuned model makes of noise that a base model inverted the image to.

    Even the noisiest timestep keeps a trace of the image; a tuned model follows the trace back to what it was tuned
    on. The base model is the target's `reference`; both must share the autoencoder, the target's is used. The noise is
    handed over as a pipeline takes start latents: it counts as the first state of the target's grid, whatever the last
    timestep of the inversion was. Nothing is random.
    """

    meta = Meta(
        name="noise-probe",
        summary="distance from what the target generates of the image's noise under its base model",
        paper="arXiv:2601.21628",
        citation="Noise as a Probe, 2026, Eq. 8",
        licence="no program",
        access=Access.IMAGES,
        needs=frozenset({Capability.DENOISE, Capability.CAPTION, Capability.REFERENCE}),
        caption="required",
        equation="−‖x − x̂‖₂, x̂ = generate_target(invert_base(x, c), c)",
        faults=(
            "Algorithm 1 of the paper has the sign of the score wrong; Eq. 8 is followed.",
            "The paper's guidance scale g stands for w = g + 1 here.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            inversion_steps: Steps of the inversion by the base model.
            inversion_guidance: w = g + 1 of the inversion; 0 and 1 need one query a step.
            steps: Steps of the generation by the target.
            guidance: w = g + 1 of the generation.
            label: Which end of an inversion's move the network is told: `destination`, as diffusers does, or `source`.
            space: Where the distance is taken: between `image`s in [-1, 1], or scaled `latent`s.
        """

        inversion_steps: int = Field(100, ge=1, le=999)
        inversion_guidance: float = Field(2.0, ge=0)
        steps: int = Field(50, ge=1, le=999)
        guidance: float = Field(4.5, ge=0)
        label: Literal["source", "destination"] = "destination"
        space: Literal["image", "latent"] = scoring("image")

    presets = {"latent": {"space": "latent"}}

    def queries(self) -> int:
        p = self.params
        walks = ((p.inversion_steps, p.inversion_guidance), (p.steps, p.guidance))
        return sum(steps * (1 if w in (0, 1) else 2) for steps, w in walks)

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        from mia_bench.diffusion.keyed import plain
        from mia_bench.diffusion.sampler import levels, walk

        p, base = self.params, target.reference
        assert base is not None, "declared in `needs`"
        given, null = (base.condition(texts) for texts in ([c or "" for c in batch.captions], [""] * len(batch)))
        up, down = levels(base, p.inversion_steps), levels(target, p.steps)[::-1]
        *_, noise = walk(base, batch.x0, up, given, null, guidance=p.inversion_guidance, label=p.label)
        *_, made = walk(target, noise, down, batch.condition, batch.null, guidance=p.guidance)
        image = target.shown(made)
        return {"image": power_sum(image - batch.pixels), "latent": power_sum(plain(made) - plain(batch.x0))}

    def score(self, measured: Measured, calibration: Measured | None) -> NDArray[np.float64]:
        distance: NDArray[np.float64] = np.sqrt(measured[self.params.space])
        return -distance


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [NoiseProbe]
