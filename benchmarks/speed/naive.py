"""Attacks as published scripts run them: one image, one timestep, one caption at a time, in eager float32.

Two kinds, so that neither is a straw man. `by_harness` runs any attack through the harness with one image per batch,
one row per call, all cores in each call (torch's default) and nothing shared; image and text states are kept for the
image. `by_hand` runs the main likelihood attacks as plain loops over a pipeline's own networks, which encode image and
caption anew for every query. Both give the numbers that the harness gives.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from once import run_once

from mia_bench.dataset import Sample
from mia_bench.diffusion.captions import thirds
from mia_bench.diffusion.noise import KeyedNoise
from mia_bench.diffusion.views import centre_crop
from mia_bench.engine.prepare import Prepared, RunOptions
from mia_bench.images import to_pixels
from mia_bench.plugins import Registry
from mia_bench.target import Target

CORES = len(os.sched_getaffinity(0))
Terms = dict[str, Any]


def by_harness(registry: Registry, prepared: Prepared, options: RunOptions) -> float:
    """Seconds per image of a planned attack, one thing at a time."""
    plainly = replace(options, rows=1, batch=1, threads=1, share=False)
    try:
        run = run_once(registry, prepared, plainly, before=lambda: torch.set_num_threads(CORES))
    finally:
        torch.set_num_threads(1)
    return run.seconds / run.images


def by_hand(name: str, prepared: Prepared, images: int) -> float:
    """Seconds per image of a plain loop over the first few images of a plan."""
    samples = list(prepared.samples.values())[: images + 1]
    torch.set_num_threads(CORES)
    try:
        loop = LOOPS[name]
        terms(loop, prepared.target, samples[:1])  # warm up
        began = time.perf_counter()
        terms(loop, prepared.target, samples[1:])
        return (time.perf_counter() - began) / (len(samples) - 1)
    finally:
        torch.set_num_threads(1)


def terms(loop: Callable[[Pipeline, Sample], Terms], target: Target, samples: Sequence[Sample]) -> list[Terms]:
    """What a loop reads off each sample."""
    with torch.no_grad():
        return [loop(Pipeline(target, sample), sample) for sample in samples]


class Pipeline:
    """A pipeline's networks, and one image."""

    def __init__(self, target: Target, sample: Sample, seed: int = 0) -> None:
        self.target, self.noise, self.id = target, KeyedNoise(seed), sample.id
        self.pixels = torch.from_numpy(to_pixels(sample.open(), target.image_size))[None]
        schedule = target.schedule
        self.signal, self.sigma = schedule.signal, schedule.noise

    def latent(self, pixels: torch.Tensor | None = None) -> torch.Tensor:
        """The image through the VAE."""
        return self.target.posterior(self.pixels if pixels is None else pixels)[:, 0].float()

    def eps(self, t: int, quantity: str = "eps") -> torch.Tensor:
        """Noise."""
        return torch.from_numpy(self.noise.draw(self.id, quantity, t, 0, tuple(self.target.sample_shape)))[None]

    def noised(self, x0: torch.Tensor, eps: torch.Tensor, t: int) -> torch.Tensor:
        return float(self.signal[t]) * x0 + float(self.sigma[t]) * eps

    def predict(self, x: torch.Tensor, t: int, caption: str) -> torch.Tensor:
        """Noise predicted for one input and one caption, which is encoded anew."""
        states = self.target.text_states(self.target.tokens([caption]))
        step = torch.tensor([t])
        return self.target.schedule.epsilon(self.target.predict(x, step, encoder_hidden_states=states), x, step)

    def jump(self, x: torch.Tensor, eps: torch.Tensor, t: int, to: int) -> torch.Tensor:
        """A deterministic step."""
        x0 = (x - float(self.sigma[t]) * eps) / float(self.signal[t])
        return float(self.signal[to]) * x0 + float(self.sigma[to]) * eps

    def error(self, t: int, caption: str, pixels: torch.Tensor | None = None, quantity: str = "eps") -> float:
        """The loss at one timestep under one caption."""
        eps = self.eps(t, quantity)
        predicted = self.predict(self.noised(self.latent(pixels), eps, t), t, caption)
        return float((predicted - eps).square().mean())


def loss(pipe: Pipeline, sample: Sample) -> Terms:
    return {"loss0": pipe.error(450, sample.caption or "")}


def mc(pipe: Pipeline, sample: Sample) -> Terms:
    return {"losses": [pipe.error(t, sample.caption or "") for t in (440, 450, 460)]}


def pia(pipe: Pipeline, sample: Sample) -> Terms:
    caption = sample.caption or ""
    clean = pipe.predict(pipe.latent(), 0, caption)
    again = pipe.predict(pipe.noised(pipe.latent(), clean, 500), 500, caption)
    return {"distance": float((clean - again).abs().pow(4).sum())}


def secmi(pipe: Pipeline, sample: Sample) -> Terms:
    caption, x = sample.caption or "", pipe.latent()
    for t in range(0, 100, 10):
        x = pipe.jump(x, pipe.predict(x, t, caption), t, t + 10)
    on = pipe.jump(x, pipe.predict(x, 100, caption), 100, 110)
    back = pipe.jump(on, pipe.predict(on, 110, caption), 110, 100)
    return {"error": float((back - x).square().sum())}


def pfami(pipe: Pipeline, sample: Sample) -> Terms:
    caption, times, crop = sample.caption or "", range(1, 500, 50), centre_crop(pipe.pixels, 0.825)
    return {
        "original": [pipe.error(t, caption) for t in times],
        "crops": [[pipe.error(t, caption, crop, "eps:crop0.825")] for t in times],
    }


def clid(pipe: Pipeline, sample: Sample) -> Terms:
    captions = [sample.caption or "", *thirds(sample.caption or ""), ""]
    return {"losses": [[pipe.error(t, caption) for caption in captions] for t in (440, 450, 460)]}


LOOPS: dict[str, Callable[[Pipeline, Sample], Terms]] = {
    made.__name__: made for made in (loss, mc, pia, secmi, pfami, clid)
}
