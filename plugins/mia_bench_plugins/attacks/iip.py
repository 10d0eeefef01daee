"""IIP: inversion-based inference perturbation (Jiang et al., ICLR 2025, openreview:vwOq7twk7L)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from mia_bench import Access, Attack, Capability, Measured, Meta, Scores, hookimpl, scoring
from mia_bench.attack import PARTIAL
from mia_bench.diffusion.reduce import power_sum
from mia_bench.encoder import Offer
from mia_bench.errors import UsageError
from mia_bench.fit import TRANSDUCTIVE, robust

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from mia_bench.batch import Batch
    from mia_bench.diffusion.denoiser import Condition
    from mia_bench.target import Target

STRING = {"mode": "string"}
QUICK = {**STRING, "encoder": "emoji-clip", "samples": 75}


class IIP(Attack):
    """Invert an image without a prompt, then generate under one that says nothing of it: memorised images resist.

    z_0 ... z_{t_I} is the DDIM inversion under the empty prompt ∅. From z_{t_I}, guidance w pulls the generation
    towards a prompt p. Drawn at random, p is first `optimised` to stay on the way up (`kept_on_the_way`): an ordinary
    image lets it fall silent, a memorised one, the paper claims, does not, so that the generated image x' differs (d)
    and p stays loud (m).

    Established are the inversion, 50 steps, w = 7.5, optimised prompts, the string "ata", the constants 20 and 10, and
    weights of 1. Ours: what the constants stand for, how p is optimised, the encoder, how d and m are scaled and added.
    Only `optimised` needs gradients.
    Without a calibration set R is of the unlabelled audit set: tagged `transductive`. A term that has members lower
    than non-members on the calibration set is tagged, never turned round.
    """

    meta = Meta(
        name="iip",
        summary="how an image, inverted without a prompt, withstands one that says nothing of it",
        paper="openreview:vwOq7twk7L",
        citation="Jiang et al., ICLR 2025",
        licence="no program",
        access=Access.GRADIENT,
        needs=frozenset({Capability.DENOISE, Capability.CAPTION, Capability.GENERATE}),
        caption="unused",
        calibration="optional",
        orientation="higher is member",
        equation="s = λ_d R(1 − cos(f(x), f(x'))) + λ_e R(mean_k m_k), m_k = ‖ε(y_k, k, p) − ε(y_k, k, ∅)‖₂, "
        "R(v) = (v − median) / IQR",
        faults=(
            "Made to find memorised images, 152 in the paper; of mere membership it may say nothing.",
            "Where a model restores a memorised image without any prompt, a prompt changes little: both terms are "
            "lower for it, not higher.",
            "A re-implementation by others skips the first step of the inversion: its descent is told timesteps 20 "
            "too low. Here every state has its own.",
            "Prompts drawn at random are unlike any text's: in half precision attention may overflow.",
        ),
    )

    class Params(Attack.Params):
        """Parameters.

        Attributes:
            mode: The prompt: `optimised`, a `string`, or `random` states as drawn.
            string: That of mode `string`.
            encoder: What compares images: 1 - cosine of what it makes of them, or a distance of its own.
            grid: Steps of a whole walk.
            depth: t_I, steps of the inversion.
            until: t_E, level above which p is optimised.
            guidance: w.
            updates: Most steps of a level's descent.
            lr: Its learning rate.
            loudness: Weight of the mean square of ε_p − ε_∅ in its objective: 1 if the paper's weights belong there.
            label: Which end of an inversion's move the network is told: `destination`, as diffusers does, or `source`.
            d_reference: What x' is compared with: the `image`, or its `reconstruction` from z_{t_I} under ∅.
            lambda_d: Weight of d.
            lambda_e: Weight of m.
            m_of: Levels that m is the mean of: `all`, those above t_E (`upper`), where p was optimised, or the `lower`.
        """

        mode: Literal["optimised", "string", "random"] = "optimised"
        string: str = "ata"
        encoder: str = "sscd"
        grid: int = Field(50, ge=1, le=999)
        depth: int = Field(20, ge=1)
        until: int = Field(10, ge=0)
        guidance: float = Field(7.5, ge=0)
        updates: int = Field(50, ge=0)
        lr: float = Field(0.01, gt=0)
        loudness: float = Field(0.0, ge=0)
        label: Literal["source", "destination"] = "destination"
        d_reference: Literal["image", "reconstruction"] = "image"
        lambda_d: float = scoring(1.0, ge=0)
        lambda_e: float = scoring(1.0, ge=0)
        m_of: Literal["all", "upper", "lower"] = scoring("all")

        @model_validator(mode="after")
        def _levels_fit(self) -> Self:
            if not self.until <= self.depth <= self.grid:
                raise ValueError(f"depth: {self.depth} is not between until and grid")
            if self.until == {"upper": self.depth, "lower": 0}.get(self.m_of):
                raise ValueError(f"m_of: there is no {self.m_of} level")
            return self

    presets = {
        "d": {"lambda_e": 0},
        "m": {"lambda_d": 0},
        "lambda-objective": {"loudness": 1},
        "random": {"mode": "random"},
        "string": STRING,
        "string-d": {**STRING, "lambda_e": 0},
        "string-m": {**STRING, "lambda_d": 0},
        "quick": QUICK,
        "quick-d": {**QUICK, "lambda_e": 0},
        "quick-m": {**QUICK, "lambda_d": 0},
    }

    def needs(self) -> frozenset[Capability]:
        return self.meta.needs | ({Capability.GRADIENT} if self.params.mode == "optimised" else frozenset())

    def encoders(self) -> dict[str, frozenset[Offer]]:
        return {self.params.encoder: frozenset({Offer.DISTANCE})}

    def queries(self) -> int:
        p = self.params
        walks: int = p.depth * (3 if p.d_reference == "image" else 4)
        return walks + ((p.depth - p.until) * (p.updates + 2) if p.mode == "optimised" else 0)

    def measure(self, batch: Batch, target: Target) -> dict[str, Any]:
        if self.params.mode == "optimised" and target.dtype == "float16":
            fix = "--dtype float32 or bfloat16, or iip@string, which optimises nothing"
            raise UsageError("attack 'iip'", "the gradient of a prompt vanishes or overflows in float16", fix)
        start, end, power = self.perturbed(batch, target)
        compare = target.encoders[self.params.encoder].distance
        return {"d": compare(self.reference(batch, target, start), target.shown(end)), "power": power}

    def perturbed(self, batch: Batch, target: Target) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """z_{t_I}, where the perturbed inference leads from there, and m_k² at k = t_I ... 1, `(B, t_I)`."""
        import torch

        from mia_bench.diffusion.keyed import plain
        from mia_bench.diffusion.sampler import mixed, walk

        path, null, powers = self.path(target), batch.null, []
        way = [batch.x0, *walk(target, batch.x0, path, null, label=self.params.label)]
        x, prompt = way[-1], self.prompt(batch, target, way)
        for t, to in pairwise(path[::-1]):
            both = target.denoiser(x, t, [prompt, null])
            powers.append(power_sum(plain(both)[:, 0] - plain(both)[:, 1]))
            x = target.schedule.jump(x, mixed(both, self.params.guidance), t, to)
        return way[-1], x, torch.stack(powers, dim=1)

    def path(self, target: Target) -> list[int]:
        """Timesteps of z_0 ... z_{t_I}."""
        from mia_bench.diffusion.sampler import levels

        return levels(target, self.params.grid)[: self.params.depth + 1]

    def prompt(self, batch: Batch, target: Target, way: list[torch.Tensor]) -> Condition:
        """p, given z_0 ... z_{t_I}."""
        from mia_bench.diffusion.prompts import kept_on_the_way, prompt_of

        p, null = self.params, batch.null
        if p.mode == "string":
            return target.condition([p.string] * len(batch))
        states = batch.draw("prompt", tuple(null.states["encoder_hidden_states"].shape[1:]))
        if p.mode == "optimised":
            weights, limits = {"guidance": p.guidance, "loudness": p.loudness}, {"steps": p.updates, "lr": p.lr}
            states = kept_on_the_way(target, states, way, self.path(target), null, until=p.until, **weights, **limits)
        return prompt_of(states, null)

    def reference(self, batch: Batch, target: Target, start: torch.Tensor) -> torch.Tensor:
        """The image that x' is compared with."""
        from mia_bench.diffusion.sampler import walk

        if self.params.d_reference == "image":
            return batch.pixels
        *_, end = walk(target, start, self.path(target)[::-1], batch.null)
        return target.shown(end)

    def artifacts(self, batch: Batch, target: Target) -> dict[str, torch.Tensor]:
        start, end, _ = self.perturbed(batch, target)
        made = target.shown(end)
        difference = (made - self.reference(batch, target, start)).abs() - 1
        inverted = target.shown(start)
        return {"original": batch.pixels, "inverted": inverted, "perturbed": made, "difference": difference}

    def score(self, measured: Measured, calibration: Measured | None) -> Scores:
        from mia_bench.metrics import auc

        pool = measured.select(measured.audit) if calibration is None else calibration
        tags, total = [PARTIAL, TRANSDUCTIVE][: 2 if calibration is None else 1], np.zeros(len(measured.ids))
        for name, weight in (("d", self.params.lambda_d), ("m", self.params.lambda_e)):
            total += weight * robust(self.term(name, measured), self.term(name, pool))
            if weight and pool.member is not None and auc(self.term(name, pool), pool.member) < 0.5:
                tags.append(f"{name} reversed on calibration")
        return Scores(total, tuple(tags))

    def term(self, name: str, measured: Measured) -> NDArray[np.float64]:
        """The values of d or m, `(N,)`."""
        upper = self.params.depth - self.params.until
        kept = {"all": slice(None), "upper": slice(upper), "lower": slice(upper, None)}[self.params.m_of]
        norms: NDArray[np.float64] = np.sqrt(measured["power"][:, kept])
        return measured["d"] if name == "d" else norms.mean(axis=1)


@hookimpl
def mia_bench_attacks() -> list[type[Attack]]:
    return [IIP]
